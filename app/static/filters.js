/* Opens a kernel in its place on the page. Without this file each kernel is a page of its own. */

const place = document.getElementById("kernel");
const said = document.getElementById("said");
let running = new AbortController();

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-kernel]");
  const other = event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey;
  if (!link || other || event.defaultPrevented) return;
  event.preventDefault();
  open(link.getAttribute("href"), link);
});

window.addEventListener("popstate", () => open(location.href));

/* With a link, what was clicked: then the address goes into the history and the part into sight. */
async function open(address, link) {
  running.abort();
  running = new AbortController();
  place.setAttribute("aria-busy", "true");
  try {
    const page = await read(address, running.signal);
    if (link) history.pushState(null, "", address);
    show(page);
    if (link) lead(link.dataset.step);
  } catch (error) {
    if (error.name !== "AbortError") location.assign(address);
  }
}

async function read(address, signal) {
  const answer = await fetch(address, { signal });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (!answer.ok || !page.getElementById("kernel")) throw new Error(answer.statusText);
  return page;
}

function show(page) {
  const title = page.querySelector("#kernel-title");
  document.title = page.title;
  place.replaceChildren(...page.getElementById("kernel").childNodes);
  place.removeAttribute("aria-busy");
  said.textContent = title ? `${title.textContent} is shown.` : "";
  mark(page.querySelector(".kernels a[aria-current]")?.dataset.kernel);
}

function mark(number) {
  for (const link of document.querySelectorAll(".kernels a")) {
    if (link.dataset.kernel === number) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  for (const dot of document.querySelectorAll("[data-dot]")) {
    dot.toggleAttribute("data-chosen", dot.dataset.dot === number);
  }
}

/* The link that was followed is a new one now; at the end of the row the other way remains. */
function lead(step) {
  if (step) {
    const links = [...place.querySelectorAll("[data-step]")];
    (links.find((one) => one.dataset.step === step) || links[0])?.focus({ preventScroll: true });
  }
  const top = place.getBoundingClientRect().top;
  if (top < 0 || top > window.innerHeight - 160) place.scrollIntoView({ block: "start" });
}
