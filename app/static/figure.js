/* Figure 4: its answers are fetched while its frame is shown, and it can be printed. */

const frame = document.querySelector(".plate[data-from]");
const said = document.querySelector(".said[data-wait]");
const button = document.querySelector("[data-print]");
const choosing = document.querySelector(".choosing");

if (button) {
  button.hidden = false;
  button.addEventListener("click", () => window.print());
}
if (frame) fill(frame);
if (choosing) {
  choosing.addEventListener("change", () => count(choosing));
  count(choosing);
}

async function fill(frame) {
  said.textContent = said.dataset.wait;
  try {
    const answer = await fetch(frame.dataset.from);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const plate = page.querySelector(".plate:not([data-from])");
    if (!answer.ok || !plate) throw new Error(answer.statusText);
    frame.replaceWith(document.adoptNode(plate));
    said.textContent = "";
  } catch {
    fail(frame);
  }
}

function fail(frame) {
  const again = document.createElement("a");
  again.href = frame.dataset.from;
  again.textContent = "Try again";
  frame.removeAttribute("aria-busy");
  said.replaceChildren(`${said.dataset.failed} `, again);
}

/* How many are picked of how many, as one picks; the server has the last word. */
function count(form) {
  for (const of of form.querySelectorAll("[data-of]")) {
    of.textContent = form.querySelectorAll(`[name="${of.dataset.of}"]:checked`).length;
  }
}
