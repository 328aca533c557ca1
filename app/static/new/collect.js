/* Collects photographs by class: held down, a class's button takes one picture after another.
   Without this file the form sends files only. */

import { startCamera, stopCamera, takePicture } from "./camera.js";

const INTERVAL = 150; /* milliseconds between two pictures while the button is held */
const SHOWN = 12; /* of the last pictures of a class */
const form = document.querySelector("form.collector");

if (form) prepare();

function prepare() {
  const video = form.querySelector("video");
  const camera = form.querySelector("[data-camera]");
  const taken = new Map(); /* a row's pictures */
  form.querySelectorAll("[data-row]").forEach(prepareRow);
  camera.addEventListener("click", () => (video.srcObject ? close() : open()));
  form.querySelector("[data-add]").addEventListener("click", addRow);
  form.addEventListener("collect", ({ detail: data }) => {
    for (const [row, pictures] of taken) {
      const field = row.querySelector("[type=file]").name;
      pictures.forEach((picture, n) => data.append(field, picture, `camera-${n + 1}.jpg`));
    }
  });
  form.addEventListener("sent", close);

  async function open() {
    try {
      await startCamera(video);
    } catch (error) {
      tell(error.message);
      return;
    }
    tell("");
    form.querySelector(".viewfinder").hidden = false;
    switchButtons(true);
  }

  function close() {
    stopCamera(video);
    form.querySelector(".viewfinder").hidden = true;
    switchButtons(false);
  }

  function switchButtons(on) {
    camera.textContent = on ? "Stop the camera" : "Start the camera";
    camera.setAttribute("aria-pressed", String(on));
    form.querySelectorAll("[data-take]").forEach((button) => { button.disabled = !on; });
  }

  function prepareRow(row) {
    const button = row.querySelector("[data-take]");
    taken.set(row, []);
    let held = false;
    let running = false;

    async function hold() {
      /* A pointer presses disabled buttons, too. */
      if (button.disabled) return;
      held = true;
      if (running) return;
      running = true;
      do {
        if (count() >= Number(form.dataset.pictures)) {
          tell(`At most ${form.dataset.pictures} pictures can be sent at once.`);
          break;
        }
        taken.get(row).push(await takePicture(video));
        show(row);
        await new Promise((resolve) => { setTimeout(resolve, INTERVAL); });
      } while (held && video.srcObject);
      running = false;
    }
    const release = () => { held = false; };
    button.addEventListener("pointerdown", (event) => {
      if (event.button === 0) hold();
    });
    for (const kind of ["pointerup", "pointerleave", "pointercancel", "blur", "keyup"]) button.addEventListener(kind, release);
    button.addEventListener("keydown", (event) => {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      hold();
    });
    /* What assistive technology presses has neither pointer nor key. */
    button.addEventListener("click", (event) => {
      if (event.detail === 0) hold();
      release();
    });
    button.addEventListener("contextmenu", (event) => event.preventDefault());
    row.querySelector("[data-clear]").addEventListener("click", () => {
      taken.set(row, []);
      row.querySelector("[type=file]").value = "";
      show(row);
    });
    row.querySelector("[type=file]").addEventListener("change", () => show(row));
    show(row);
  }

  function count() {
    return [...taken.keys()].reduce((sum, row) => sum + countOf(row), 0);
  }

  function countOf(row) {
    return taken.get(row).length + row.querySelector("[type=file]").files.length;
  }

  function show(row) {
    const number = countOf(row);
    row.querySelector("[data-count]").textContent = number === 0 ? "No photographs yet" : `${number} ${number === 1 ? "photograph" : "photographs"}`;
    row.querySelector("[data-clear]").disabled = number === 0;
    const list = row.querySelector(".taken");
    list.replaceChildren(...taken.get(row).slice(-SHOWN).map(preview));
  }

  function preview(picture) {
    const item = document.createElement("li");
    const image = document.createElement("img");
    const address = URL.createObjectURL(picture);
    image.alt = "";
    image.width = image.height = 48;
    image.addEventListener("load", () => URL.revokeObjectURL(address));
    image.src = address;
    item.append(image);
    return item;
  }

  function addRow() {
    const rows = form.querySelectorAll("[data-row]");
    const row = rows[rows.length - 1].cloneNode(true);
    const number = rows.length;
    for (const name of ["class", "photographs"]) {
      const input = row.querySelector(`[name^="${name}-"]`);
      input.closest("label").htmlFor = input.id = input.name = `${name}-${number}`;
      input.value = "";
      input.required = false;
    }
    row.querySelector("[data-number]").textContent = number + 1;
    rows[rows.length - 1].after(row);
    prepareRow(row);
    row.querySelector("input").focus();
  }

  function tell(sentence) {
    form.querySelector("[data-camera-text]").textContent = sentence;
  }
}
