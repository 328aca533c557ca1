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
