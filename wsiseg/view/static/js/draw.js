// @ts-check
/** Draw an area on a pane: a rectangle by dragging, a polygon by its corners, or freehand. */

/** @typedef {import("./pane.js").Pane} Pane */
/** @typedef {"pan"|"polygon"|"rectangle"} Tool */

const NEAR = 9; // a click within this many screen pixels of the first corner closes the polygon
const STEP = 4; // screen pixels between points drawn freehand

export class Drawing {
  /** @param {(pane: Pane, points: number[][]) => Promise<boolean>} finished  Whether the area was taken: else it stays. */
  constructor(finished) {
    this.finished = finished;
    /** @type {Tool} */
    this.tool = "pan";
    /** @type {Pane|null} */
    this.pane = null;
    /** @type {number[][]} corners in frame pixels */
    this.points = [];
    this.down = false;
    this.free = false;
    this.kept = false; // an area that was not taken, which Enter passes on again
  }

  /** @param {Tool} tool @param {Pane[]} panes */
  choose(tool, panes) {
    this.cancel();
    this.tool = tool;
    for (const pane of panes) pane.element.classList.toggle("drawing", tool !== "pan");
  }

  /** @param {Pane} pane */
  watch(pane) {
    const canvas = pane.vectors;
    canvas.addEventListener("pointerdown", (event) => this.press(pane, event));
    canvas.addEventListener("pointermove", (event) => this.move(pane, event));
    canvas.addEventListener("pointerup", (event) => this.release(pane, event));
    for (const name of ["click", "dblclick"]) canvas.addEventListener(name, (event) => event.stopPropagation());
  }

  cancel() {
    if (this.pane) this.pane.draft = null;
    this.pane?.redraw();
    Object.assign(this, { pane: null, points: [], down: false, free: false, kept: false });
  }

  /** Complete the area, and pass it on. */
  async finish() {
    const { pane, points } = this;
    if (!pane || points.length < 3) return this.cancel();
    const { scene } = pane;
    this.cancel();
    const taken = await this.finished(pane, points);
    if (taken || this.pane || pane.scene !== scene) return;
    Object.assign(this, { pane, points, kept: true });
    pane.draft = [...points, points[0]].flat();
    pane.redraw();
  }

  /** @param {Pane} pane @param {PointerEvent} event @returns {number[]|null} */
  at(pane, event) {
    const point = pane.toFrame(event.offsetX, event.offsetY);
    return point && [point.x, point.y];
  }

  /** @param {Pane} pane @param {PointerEvent} event */
  press(pane, event) {
    event.stopPropagation();
    const point = this.at(pane, event);
    if (event.button !== 0 || !point) return;
    event.preventDefault();
    pane.osd.canvas.focus({ preventScroll: true }); // take the keyboard from menus
    pane.vectors.setPointerCapture(event.pointerId);
    if (this.pane !== pane || this.kept) this.cancel();
    this.pane = pane;
    this.down = true;
    this.free = false;
    if (this.tool === "polygon" && this.closes(pane, point, event.detail)) return this.finish();
    this.points.push(point);
    this.show(point);
  }

  /** Whether a click closes the polygon: on the first corner, or a double click. @param {Pane} pane @param {number[]} point @param {number} clicks */
  closes(pane, [x, y], clicks) {
    if (this.points.length < 3) return false;
    const scale = pane.view()?.scale ?? 1;
    const last = this.points[this.points.length - 1];
    const far = (/** @type {number[]} */ p) => Math.hypot(p[0] - x, p[1] - y) * scale;
    return far(this.points[0]) < NEAR || (clicks > 1 && far(last) < NEAR) || far(last) < 2;
  }

  /** @param {Pane} pane @param {PointerEvent} event */
  move(pane, event) {
    const point = this.at(pane, event);
    if (this.pane !== pane || this.kept || !point) return;
    event.stopPropagation();
    const last = this.points[this.points.length - 1];
    const scale = pane.view()?.scale ?? 1;
    if (this.down && this.tool === "polygon" && Math.hypot(last[0] - point[0], last[1] - point[1]) * scale > STEP) {
      this.free = true;
      this.points.push(point);
    }
    this.show(point);
  }

  /** @param {Pane} pane @param {PointerEvent} event */
  release(pane, event) {
    const point = this.at(pane, event);
    if (this.pane !== pane || this.kept || !point) return;
    event.stopPropagation();
    this.down = false;
    if (this.tool === "rectangle") {
      const [[x0, y0]] = this.points;
      const [x1, y1] = point;
      this.points = x0 === x1 || y0 === y1 ? [] : [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
      this.finish();
    } else if (this.free && this.points.length > 8) {
      this.finish();
    }
  }

  /** @param {number[]} pointer */
  show(pointer) {
    if (!this.pane) return;
    const [[x0, y0]] = this.points;
    const [x1, y1] = pointer;
    const line = this.tool === "rectangle"
      ? [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
      : [...this.points, pointer];
    this.pane.draft = line.flat();
    this.pane.redraw();
  }
}
