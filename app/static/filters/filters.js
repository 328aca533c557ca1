/* Opens a kernel in place. Without this script each kernel is a page of its own. */

const panel = document.getElementById("kernel");
const status = document.getElementById("status");
let request = new AbortController();
let shown = addressOfKernel();

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-kernel]");
  const modified = event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey;
  if (!link || modified || event.defaultPrevented) return;
  event.preventDefault();
  openKernel(link.getAttribute("href"), link);
});

/* A link within the page changes the history too, but shows no other kernel. */
window.addEventListener("popstate", () => {
  if (addressOfKernel() !== shown) openKernel(location.href);
});

function addressOfKernel() {
  return location.pathname + location.search;
}

/* With the clicked link, the URL is added to the history and the kernel scrolled into view. */
async function openKernel(url, link) {
  request.abort();
  request = new AbortController();
  panel.setAttribute("aria-busy", "true");
  try {
    const page = await fetchPage(url, request.signal);
    if (link) history.pushState(null, "", url);
    shown = addressOfKernel();
    showKernel(page);
    if (link) moveFocus(link.dataset.step);
  } catch (error) {
    if (error.name !== "AbortError") location.assign(url);
  }
}

async function fetchPage(url, signal) {
  const response = await fetch(url, { signal });
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  if (!response.ok || !page.getElementById("kernel")) throw new Error(response.statusText);
  return page;
}

function showKernel(page) {
  const title = page.querySelector("#kernel-title");
  document.title = page.title;
  panel.replaceChildren(...page.getElementById("kernel").childNodes);
  panel.removeAttribute("aria-busy");
  status.textContent = title ? `Showing ${title.textContent}` : "";
  markCurrent(page.querySelector(".kernels a[aria-current]")?.dataset.kernel);
}

function markCurrent(number) {
  for (const link of document.querySelectorAll(".kernels a")) {
    if (link.dataset.kernel === number) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  for (const dot of document.querySelectorAll("[data-dot]")) {
    dot.toggleAttribute("data-current", dot.dataset.dot === number);
  }
}

/* The followed link has been replaced: focus its successor, or at the last kernel the link back. */
function moveFocus(step) {
  if (step) {
    const links = [...panel.querySelectorAll("[data-step]")];
    (links.find((link) => link.dataset.step === step) || links[0])?.focus({ preventScroll: true });
  }
  const top = panel.getBoundingClientRect().top;
  if (top < 0 || top > window.innerHeight - 160) panel.scrollIntoView({ block: "start" });
}
