/* Pointers, wheel and keys: what they mean on the map. */

const SLIP = 4; /* pixels that a click may move */
const STEP = 60;
const FINE = 16;
const BY_KEY = 1.5;
const LINES = 16; /* pixels a line of a wheel that counts lines */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function followPointers(canvas, chart) {
  const pointers = new Map();
  let press = null;

  const place = (event) => {
    const frame = canvas.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pointers.set(event.pointerId, place(event));
    canvas.setPointerCapture(event.pointerId);
    if (pointers.size === 1) {
      press = { from: place(event), moved: false, selecting: chart.selecting || event.shiftKey };
    } else {
      if (press?.selecting && press.moved) chart.giveUp();
      press = null;
    }
  });

  canvas.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      chart.pointAt(...now);
      return;
    }
    if (pointers.size === 2) pinch(event.pointerId, now);
    else if (press) drag(before, now);
    pointers.set(event.pointerId, now);
  });

  function drag(before, now) {
    press.moved ||= Math.hypot(now[0] - press.from[0], now[1] - press.from[1]) > SLIP;
    if (!press.moved) return;
    chart.letGo();
    if (press.selecting) {
      press.corner ??= chart.view.at(...press.from);
      chart.stretch(press.corner, chart.view.at(...now));
    } else {
      const start = press.started ? before : press.from;
      press.started = true;
      canvas.parentElement.classList.add("moving");
      chart.move(now[0] - start[0], now[1] - start[1]);
    }
  }

  function pinch(moving, now) {
    const still = [...pointers].find(([id]) => id !== moving)[1];
    const before = pointers.get(moving);
    const apart = (a, b) => Math.max(Math.hypot(a[0] - b[0], a[1] - b[1]), 1);
    const middle = (a, b) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    const [from, to] = [middle(still, before), middle(still, now)];
    chart.letGo();
    chart.move(to[0] - from[0], to[1] - from[1]);
    chart.zoomAbout(...to, apart(still, now) / apart(still, before));
  }

  const release = (event) => {
    canvas.parentElement.classList.remove("moving");
    if (!pointers.delete(event.pointerId) || !press) return;
    const { moved, selecting } = press;
    press = null;
    if (moved && selecting) event.type === "pointerup" ? chart.finish() : chart.giveUp();
    else if (!moved && event.type === "pointerup") chart.press(...place(event), event);
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "touch") chart.letGo();
  });

  canvas.addEventListener("wheel", (event) => {
    const turned = event.deltaY * (event.deltaMode ? LINES : 1) * (event.ctrlKey ? 6 : 1);
    /* At the whole map a turn outwards scrolls the page on. */
    if (turned > 0 && chart.view.zoom === 1 && !event.ctrlKey) return;
    event.preventDefault();
    chart.zoomAbout(...place(event), Math.exp(-turned / 500));
    chart.pointAt(...place(event));
  }, { passive: false });
}

export function followKeys(canvas, chart) {
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    const does = arrow ? () => step(...arrow, event.shiftKey) : keys[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  });
  canvas.addEventListener("keyup", (event) => {
    if (event.key === "Shift" && chart.marking === "shift") chart.finish();
  });
  canvas.addEventListener("focus", () => {
    if (canvas.matches(":focus-visible")) chart.aim(0, 0);
  });
  canvas.addEventListener("blur", () => chart.lookAway());

  const keys = {
    "+": () => chart.zoomBy(BY_KEY),
    "=": () => chart.zoomBy(BY_KEY),
    "-": () => chart.zoomBy(1 / BY_KEY),
    0: () => chart.showWhole(),
    Enter: () => (chart.marking ? chart.finish() : chart.open(chart.ringed)),
    " ": () => (chart.marking ? chart.finish() : chart.mark("space")),
    Escape: () => chart.escape(),
  };

  function step(across, down, shift) {
    if (shift && !chart.marking) chart.mark("shift");
    if (chart.marking || chart.selecting) chart.aim(across * FINE, down * FINE);
    else {
      chart.move(-across * STEP, -down * STEP);
      chart.aim(0, 0);
    }
  }
}
