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
  });
}

function describe(typed, found, all) {
  if (!typed) return "";
  return found ? `${found.toLocaleString("en")} of ${all.toLocaleString("en")} classes` : `No class matches “${typed}”.`;
}
