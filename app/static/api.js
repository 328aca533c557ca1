// The API's operations, by Swagger UI: its own heading and choice of servers say nothing here.
const place = document.getElementById("operations");
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const nothing = () => () => null;

function follow() {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
}

// What an address leads to lies below the operations, which have come by now.
function arrive() {
  document.getElementById(window.location.hash.slice(1))?.scrollIntoView();
}

follow();
dark.addEventListener("change", follow);
window.SwaggerUIBundle({
  url: place.dataset.document,
  domNode: place,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  validatorUrl: null,
  onComplete: () => window.requestAnimationFrame(arrive),
  plugins: [{ wrapComponents: { InfoContainer: nothing, ServersContainer: nothing } }],
});
