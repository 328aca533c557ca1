/* Filter the list of classes while typing. Without this file the form does it. */

const field = document.querySelector(".class-search [name=q]");
if (field) filterWhileTyping(field);

/* As the server matches names: without accents and case, every word somewhere in the name. */
function fold(text) {
  return text.normalize("NFKD").replace(/\p{Mn}/gu, "").toUpperCase().toLowerCase();
}

function filterWhileTyping(field) {
  const classes = [...document.querySelectorAll("[data-class]")];
  const names = classes.map((one) => fold(one.querySelector("span").textContent));
  const status = document.querySelector(".sidebar .status-text");
  field.addEventListener("input", () => {
    const words = fold(field.value).split(/\s+/);
    const found = names.map((name) => words.every((word) => name.includes(word)));
    classes.forEach((one, n) => { one.hidden = !found[n]; });
    status.textContent = describe(field.value.trim(), found.filter(Boolean).length, found.length);
    narrowRows(words);
  });
}

/* The rows beside the list: those that do not match are hidden, and those of matching classes that
   are on other pages are fetched. scroll.js may append rows at any time. */
const FETCH_PAUSE = 250; /* milliseconds without typing */
const rows = document.querySelector("[data-scroll=classes]");
let sought = [""];
let timer = 0;

if (rows) new MutationObserver(hideOtherRows).observe(rows, { childList: true });

function narrowRows(words) {
  if (!rows) return;
  sought = words;
  clearTimeout(timer);
  if (words.join("")) timer = setTimeout(fetchRows, FETCH_PAUSE);
  else rows.querySelectorAll("[data-fetched]").forEach((row) => row.remove());
  hideOtherRows();
}

function hideOtherRows() {
  for (const row of rows.children) {
    const name = fold(row.querySelector("h2").textContent);
    row.hidden = !sought.every((word) => name.includes(word));
  }
}

async function fetchRows() {
  const words = sought;
  const address = new URL(field.form.action);
  address.search = new URLSearchParams(new FormData(field.form));
  const answer = await fetch(address, { headers: { "X-Part": "images" } }).catch(() => null);
  if (!answer?.ok || words !== sought) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const found = [...page.querySelectorAll("[data-scroll=classes] > *")];
  const missing = found.filter((row) => !document.getElementById(row.id));
  /* For scroll.js, which keeps the page of what is in view in the address. */
  for (const row of missing) Object.assign(row.dataset, { page: rows.dataset.page, fetched: "" });
  rows.append(...missing);
  document.dispatchEvent(new Event("tiles"));
}

function describe(typed, found, all) {
  if (!typed) return "";
  return found ? `${found.toLocaleString("en")} of ${all.toLocaleString("en")} classes` : `No class matches “${typed}”.`;
}
