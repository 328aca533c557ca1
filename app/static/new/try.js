/* Classifies an image as soon as it is chosen, or what the camera shows, again and again. The form
   works without this file. */

import { startCamera, stopCamera, takePicture } from "./camera.js";

const PAUSE = 200; /* milliseconds between an answer and the next picture */
const form = document.querySelector(".try-form");

if (form) {
  const video = form.querySelector("video");
  const picture = form.querySelector(".viewfinder img");
  const button = form.querySelector("[data-camera]");
  const input = form.querySelector("#image");

  input.addEventListener("change", () => {
    const [file] = input.files;
    if (file) tryFile(file);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    tryFile(input.files[0]);
  });
  button.addEventListener("click", () => (video.srcObject ? close() : open()));

  async function tryFile(file) {
    close();
    const address = URL.createObjectURL(file);
    picture.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
    picture.src = address;
    show(picture);
    say("Classifying …");
    await classify(file, file.name);
  }

  async function open() {
    try {
      await startCamera(video);
    } catch (error) {
      say(error.message);
      return;
    }
    show(video);
    button.setAttribute("aria-pressed", "true");
    button.textContent = "Stop the camera";
    say("");
    while (video.srcObject && (await classify(await takePicture(video), ""))) {
      await new Promise((resolve) => { setTimeout(resolve, PAUSE); });
    }
    if (video.srcObject) close();
  }

  function close() {
    stopCamera(video);
    button.setAttribute("aria-pressed", "false");
    button.textContent = "Use the camera";
  }

  function show(seen) {
    seen.closest(".viewfinder").hidden = false;
    video.hidden = seen !== video;
    picture.hidden = seen !== picture;
  }

  /* Shows the answer; returns whether there was one. */
  async function classify(blob, name) {
    const data = new FormData();
    data.append("csrf_token", form.querySelector("[name=csrf_token]").value);
    data.append("image", blob, name || "camera.jpg");
    let sentence = "";
    let found = "";
    try {
      const answer = await fetch(`${form.action}?part`, { method: "POST", body: data });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const part = answer.ok ? page.querySelector("[data-answer]") : null;
      if (part) {
        if (!name) part.querySelector("[data-filename]")?.remove();
        /* Read out for a file; while the camera runs it would never end. */
        const [label, share] = part.querySelectorAll(".bars li:first-child span");
        found = name ? `${label.textContent.trim()}, ${share.textContent.trim()}` : "";
        document.querySelector("[data-answer]").replaceWith(document.adoptNode(part));
      } else {
        sentence = page.querySelector(".message p, .problem")?.textContent.trim() || `The server returned an error (${answer.status}).`;
      }
    } catch {
      sentence = "The server is not responding.";
    }
    say(sentence || found);
    return sentence === "";
  }

  function say(sentence) {
    form.querySelector(".status-text").textContent = sentence;
  }
}
