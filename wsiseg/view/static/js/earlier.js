// @ts-check
/** The corrections of an earlier run: shown over this map, and kept in this run's corrections. */
import { readEarlier } from "./api.js";
import { byId, make } from "./dom.js";
import { makeRow } from "./rows.js";
import { boxOf } from "./shapes.js";

/** @typedef {import("./pane.js").Pane} Pane */
/** @typedef {import("./types.js").Earlier} Mark */

export class Earlier {
  /**
   * @param {import("./corrections.js").Corrections} corrections
   * @param {(one: Mark) => void} select
   */
  constructor(corrections, select) {
    this.corrections = corrections;
    this.select = select;
    /** @type {Mark[]} of the open slide */
    this.marks = [];
    this.title = "";
    this.note = ""; // why there are none
    byId("earlier-all").addEventListener("click", () => this.keepAll());
  }

  /** @param {Pane} pane */
  async open(pane) {
    this.pane = pane;
    Object.assign(this, { marks: [], title: "", note: "" });
    this.show();
    const { scene } = pane;
    if (!scene?.layers.labels) return;
    const { title, note, features } = await readEarlier(scene.id);
    if (pane.scene !== scene) return;
    Object.assign(this, { title, note, marks: features.map((one) => ({ ...one, box: boxOf(one.rings) })) });
    this.show();
  }

  keepAll() {
    this.corrections.keep(this.pane?.earlier.filter(({ copy }) => copy) ?? []);
  }

  /** Show those that were not kept: of the others there are copies among the corrections. */
  show() {
    const { pane, marks } = this;
    byId("earlier").hidden = !this.title;
    if (!pane) return;
    const there = new Set(pane.corrections.map(({ id }) => id));
    pane.earlier = marks.filter(({ id, copy }) => !there.has(id) && !there.has(copy ?? ""));
    const kept = marks.length - pane.earlier.length;
    byId("earlier-count").textContent = kept ? `${marks.length}, ${kept} kept` : String(marks.length);
    byId("earlier-text").textContent = this.note ? `${this.title} ${this.note}.` : `From ${this.title}, as dashed lines.`;
    byId("earlier-list").replaceChildren(...pane.earlier.map((one) => this.row(pane, one)));
    byId("earlier-all").hidden = !pane.earlier.some(({ copy }) => copy);
    pane.redraw();
  }

  /** @param {Pane} pane @param {Mark} one */
  row(pane, one) {
    const keep = make("button", { className: "take", title: "Keep it among the corrections of this run" }, "Keep");
    keep.addEventListener("click", () => this.corrections.keep([one]));
    const go = () => {
      pane.showBox(one.box);
      this.select(one);
    };
    return makeRow(/** @type {import("./types.js").Scene} */ (pane.scene), one, go, one.copy ? keep : undefined);
  }
}
