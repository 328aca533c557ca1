/* Loads the figure's content into its placeholder, prints it, and counts the chosen images. */

const placeholder = document.querySelector(".plate[data-from]");
const status = document.querySelector(".status[data-wait]");
const printButton = document.querySelector("[data-print]");
const form = document.querySelector(".selection");

if (printButton) {
  printButton.hidden = false;
  printButton.addEventListener("click", () => window.print());
}
if (placeholder) loadFigure();
if (form) {
  form.addEventListener("change", countSelected);
  countSelected();
}

document.querySelectorAll("[data-save]").forEach((link) => link.addEventListener("click", saveFile));

/* Drawing takes seconds, in which a link that only downloads would be silent. */
async function saveFile(event) {
  const link = event.currentTarget;
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  if (link.ariaBusy === "true") return;
  link.ariaBusy = "true";
  status.textContent = `Drawing the ${link.dataset.save} …`;
  try {
    const answer = await fetch(link.href);
    if (!answer.ok) throw new Error(answer.statusText);
    const name = answer.headers.get("Content-Disposition")?.match(/filename="?([^";]+)/)?.[1];
    const file = document.createElement("a");
    file.href = URL.createObjectURL(await answer.blob());
    file.download = name ?? "figure-4";
    file.click();
    setTimeout(() => URL.revokeObjectURL(file.href), 60_000);
    status.textContent = `Saved as ${file.download}.`;
  } catch {
    status.textContent = "The file could not be drawn; try again.";
  }
  link.ariaBusy = "false";
}

async function loadFigure() {
  status.textContent = status.dataset.wait;
  try {
    const response = await fetch(placeholder.dataset.from);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const figure = page.querySelector(".plate:not([data-from])");
    if (!response.ok || !figure) throw new Error(response.statusText);
    placeholder.replaceWith(document.adoptNode(figure));
    status.textContent = "";
  } catch {
    showFailure();
  }
}

function showFailure() {
  const retry = document.createElement("a");
  retry.href = placeholder.dataset.from;
  retry.textContent = "Try again";
  placeholder.removeAttribute("aria-busy");
  status.replaceChildren(`${status.dataset.failed} `, retry);
}

/* Only a hint: the server checks the selection. */
function countSelected() {
  for (const counter of form.querySelectorAll("[data-of]")) {
    counter.textContent = form.querySelectorAll(`[name="${counter.dataset.of}"]:checked`).length;
  }
}
