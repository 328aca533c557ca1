/* Pointer, wheel and keyboard input on the map. */

const CLICK_SLOP = 4; /* pixels that the pointer may move during a click */
const PAN_STEP = 60;
const CURSOR_STEP = 16;
const KEY_ZOOM = 1.5;
const LINE_HEIGHT = 16; /* pixels, for wheels that count lines */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function handlePointers(canvas, map) {
  const pointers = new Map();
  let press = null;

  const position = (event) => {
    const frame = canvas.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pointers.set(event.pointerId, position(event));
    canvas.setPointerCapture(event.pointerId);
    if (pointers.size === 1) {
      press = { from: position(event), moved: false, selecting: map.selecting || event.shiftKey };
    } else {
      if (press?.selecting && press.moved) map.cancelRegion();
      press = null;
    }
  });

  canvas.addEventListener("pointermove", (event) => {
    const now = position(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      map.hoverAt(...now);
      return;
    }
    if (pointers.size === 2) pinch(event.pointerId, now);
    else if (press) drag(before, now);
    pointers.set(event.pointerId, now);
  });

  function drag(before, now) {
    press.moved ||= Math.hypot(now[0] - press.from[0], now[1] - press.from[1]) > CLICK_SLOP;
    if (!press.moved) return;
    map.clearHover();
    if (press.selecting) {
      press.corner ??= map.viewport.toMap(...press.from);
      map.stretchRegion(press.corner, map.viewport.toMap(...now));
    } else {
      const start = press.started ? before : press.from;
      press.started = true;
      canvas.parentElement.classList.add("panning");
      map.panBy(now[0] - start[0], now[1] - start[1]);
    }
  }

  function pinch(moving, now) {
    const still = [...pointers].find(([id]) => id !== moving)[1];
    const before = pointers.get(moving);
    const distance = (a, b) => Math.max(Math.hypot(a[0] - b[0], a[1] - b[1]), 1);
    const centre = (a, b) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    const [from, to] = [centre(still, before), centre(still, now)];
    map.clearHover();
    map.panBy(to[0] - from[0], to[1] - from[1]);
    map.zoomAt(...to, distance(still, now) / distance(still, before));
  }

  const release = (event) => {
    canvas.parentElement.classList.remove("panning");
    if (!pointers.delete(event.pointerId) || !press) return;
    const { moved, selecting } = press;
    press = null;
    if (moved && selecting) event.type === "pointerup" ? map.finishRegion() : map.cancelRegion();
    else if (!moved && event.type === "pointerup") map.clickAt(...position(event), event);
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "touch") map.clearHover();
  });

  canvas.addEventListener("wheel", (event) => {
    const turned = event.deltaY * (event.deltaMode ? LINE_HEIGHT : 1) * (event.ctrlKey ? 6 : 1);
    /* The wheel scrolls the page, unless the map was clicked or Ctrl is held; and so does zooming
       out of the whole map. */
    if (!event.ctrlKey && (document.activeElement !== canvas || (turned > 0 && map.viewport.zoom === 1))) return;
    event.preventDefault();
    map.zoomAt(...position(event), Math.exp(-turned / 500));
    map.hoverAt(...position(event));
  }, { passive: false });
}

export function handleKeys(canvas, map) {
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    const action = arrow ? () => moveBy(...arrow, event.shiftKey) : actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  canvas.addEventListener("keyup", (event) => {
    if (event.key === "Shift" && map.regionKey === "shift") map.finishRegion();
  });
  canvas.addEventListener("focus", () => {
    if (canvas.matches(":focus-visible")) map.moveCursor(0, 0);
  });
  canvas.addEventListener("blur", () => map.hideCursor());

  const actions = {
    "+": () => map.zoomBy(KEY_ZOOM),
    "=": () => map.zoomBy(KEY_ZOOM),
    "-": () => map.zoomBy(1 / KEY_ZOOM),
    0: () => map.showWholeMap(),
    Enter: () => (map.regionKey ? map.finishRegion() : map.openImage(map.hovered)),
    " ": () => (map.regionKey ? map.finishRegion() : map.startRegion("space")),
    Escape: () => map.escape(),
  };

  function moveBy(right, down, shift) {
    if (shift && !map.regionKey) map.startRegion("shift");
    if (map.regionKey || map.selecting) map.moveCursor(right * CURSOR_STEP, down * CURSOR_STEP);
    else {
      map.panBy(-right * PAN_STEP, -down * PAN_STEP);
      map.moveCursor(0, 0);
    }
  }
}
