// @ts-check
/** Show what is under the pointer: the class from loaded tiles at once, then the region from the server. */
import { hoverAt } from "./api.js";
import { byId, make, sayArea, sayShare, swatch } from "./dom.js";
import { earlierAt } from "./picking.js";
import { sayEarlier } from "./rows.js";

/** @typedef {import("./pane.js").Pane} Pane */

const WAIT_MS = 60;

export class Hover {
  constructor() {
    this.box = byId("hover");
    /** @type {number|undefined} */
    this.timer = undefined;
    /** @type {AbortController|null} */
    this.controller = null;
  }

  /** @param {Pane} pane */
  watch(pane) {
    pane.holder.addEventListener("pointermove", (event) => this.move(pane, event));
    pane.holder.addEventListener("pointerleave", () => this.hide());
    pane.holder.addEventListener("pointerdown", () => this.hide());
  }

  hide() {
    window.clearTimeout(this.timer);
    this.controller?.abort();
    this.box.hidden = true;
  }

  /** @param {Pane} pane @param {PointerEvent} event */
  move(pane, event) {
    window.clearTimeout(this.timer);
    this.controller?.abort();
    const frame = pane.holder.getBoundingClientRect();
    const at = pane.toFrame(event.clientX - frame.left, event.clientY - frame.top);
    const { scene } = pane;
    const view = pane.view();
    if (!at || !scene || !view || event.buttons || !scene.layers.labels || pane.isDrawnOn) return this.hide();
    byId("place").textContent = `x ${Math.round(at.x * scene.mpp)} µm, y ${Math.round(at.y * scene.mpp)} µm`;
    const earlier = earlierAt(pane, at.x, at.y).map(sayEarlier);
    const value = pane.map?.valueAt("labels", view, at.x, at.y);
    if (value === 0) return this.show(event, null, earlier);
    const shown = value ? scene.classes[value - 1] : undefined;
    if (shown) this.show(event, shown, earlier);
    this.timer = window.setTimeout(() => this.ask(scene, at, event, earlier), WAIT_MS);
  }

  /** @param {import("./types.js").Scene} scene @param {{x: number, y: number}} at @param {PointerEvent} event @param {string[]} earlier */
  async ask(scene, at, event, earlier) {
    const controller = (this.controller = new AbortController());
    try {
      const answer = await hoverAt(scene.id, at.x, at.y, controller.signal);
      if (controller.signal.aborted) return;
      if (!answer) return this.show(event, null, earlier);
      const color = scene.classes.find(({ name }) => name === answer.class)?.color ?? [128, 128, 128];
      const lines = [`Confidence here ${sayShare(answer.confidence)}`];
      if (answer.region) {
        lines.push(`Region ${sayArea(answer.region.mm2)}, mean confidence ${sayShare(answer.region.confidence)}`, answer.region.id);
      }
      this.show(event, { name: answer.class, color }, [...lines, ...earlier]);
    } catch (error) {
      if (!controller.signal.aborted) byId("state").textContent = String(/** @type {Error} */ (error).message);
    }
  }

  /** @param {PointerEvent} event @param {{name: string, color: number[]}|null} shown  The class of the map there, if it has one. @param {string[]} lines */
  show(event, shown, lines) {
    const head = shown ? [make("b", {}, swatch(shown.color), shown.name)] : [];
    this.box.replaceChildren(...head, ...lines.map((line) => make("small", {}, line)));
    this.box.hidden = !this.box.childElementCount;
    const { width, height } = this.box.getBoundingClientRect();
    const [x, y] = [event.clientX + 16, event.clientY + 16];
    this.box.style.left = `${x + width > innerWidth ? event.clientX - width - 12 : x}px`;
    this.box.style.top = `${y + height > innerHeight ? event.clientY - height - 12 : y}px`;
  }
}
