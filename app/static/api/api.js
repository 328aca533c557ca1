// Swagger UI with the API's operations; its own heading and server menu are left out.
const container = document.getElementById("operations");
const darkScheme = window.matchMedia("(prefers-color-scheme: dark)");
const hidden = () => () => null;

function applyScheme() {
  document.documentElement.classList.toggle("dark-mode", darkScheme.matches);
}

// The target of the URL may lie below the operations, which are only rendered now.
function scrollToTarget() {
  document.getElementById(window.location.hash.slice(1))?.scrollIntoView();
}

applyScheme();
darkScheme.addEventListener("change", applyScheme);
window.SwaggerUIBundle({
  url: container.dataset.document,
  domNode: container,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  validatorUrl: null,
  onComplete: () => window.requestAnimationFrame(scrollToTarget),
  plugins: [{ wrapComponents: { InfoContainer: hidden, ServersContainer: hidden } }],
});
