/* Applies a switch as soon as it is moved. Without this file a button does. */

const form = document.querySelector(".switches");
const status = document.querySelector(".status[data-wait]");
let request = null;

if (form) {
  form.classList.add("live");
  form.addEventListener("change", () => show(addressOf(form)));
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-next]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(new URL(link.href));
  });
}

function addressOf(form) {
  const address = new URL(form.action);
  address.search = new URLSearchParams(new FormData(form));
  return address;
}

/* The last move counts: an answer to an earlier one is dropped. */
async function show(address) {
  request?.abort();
  const mine = new AbortController();
  request = mine;
  const changed = document.querySelector("[data-changed]");
  changed.setAttribute("aria-busy", "true");
  status.textContent = status.dataset.wait;
  try {
    const answer = await fetch(address, { signal: mine.signal });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const other = page.querySelector("[data-changed]");
    if (!answer.ok || !other) throw new Error(answer.statusText);
    changed.replaceWith(document.adoptNode(other));
    history.replaceState(null, "", address);
    status.textContent = "";
  } catch {
    if (mine.signal.aborted) return;
    changed.removeAttribute("aria-busy");
    status.textContent = status.dataset.failed;
  }
}
