/* A wide, large layout for a projector. It stays on from page to page while the tab is open; the
   browser leaves the full screen when another page is loaded, and its own key returns to it. */

const KEY = "present";
const root = document.documentElement;
const button = document.querySelector("[data-present]");

function isOn() {
  try {
    return sessionStorage.getItem(KEY) === "on";
  } catch {
    return root.classList.contains("present");
  }
}

function store(on) {
  try {
    sessionStorage.setItem(KEY, on ? "on" : "off");
  } catch {
    /* Storage is blocked: it lasts as long as this page. */
  }
  show(on);
}

function show(on) {
  root.classList.toggle("present", on);
  if (!button) return;
  button.setAttribute("aria-pressed", String(on));
  button.textContent = on ? "Leave presentation" : "Present";
}

async function toggle() {
  const on = !isOn();
  store(on);
  try {
    if (on) await root.requestFullscreen();
    else if (document.fullscreenElement) await document.exitFullscreen();
  } catch {
    /* A browser without a full screen still has the layout. */
  }
}

button?.addEventListener("click", toggle);
show(isOn());
