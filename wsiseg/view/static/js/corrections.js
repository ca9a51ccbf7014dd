// @ts-check
/** Corrections of the slide: the selected region, the list, and saving on the server. */
import { correct, readCorrections } from "./api.js";
import { Classes } from "./classes.js";
import { colorOf } from "./correction_marks.js";
import { byId, make, sayArea, sayShare, swatch } from "./dom.js";
import { boxOf } from "./shapes.js";

/** @typedef {import("./pane.js").Pane} Pane */
/** @typedef {import("./types.js").Correction} Correction */

/**
 * @typedef {object} Listeners
 * @property {(text: string, bad?: boolean) => void} tell
 * @property {(id: string, exists: boolean) => Promise<void>} saved  After each change that was saved.
 * @property {() => void} shown  After the list was shown anew.
 * @property {(slide: string) => Promise<void>} open  Open the slide with that id.
 */

export class Corrections {
  /** @param {Listeners} listeners */
  constructor(listeners) {
    this.listeners = listeners;
    this.classes = new Classes();
    this.failed = false; // whether the last change was not saved
    this.undoable = 0; // changes of this slide that the server can undo
    /** @type {string[]} the slide of each change since the page was opened */
    this.made = [];
    /** @type {HTMLButtonElement} */
    this.undoButton = byId("undo");
    this.undoButton.addEventListener("click", () => this.undo());
  }

  /** @param {Pane} pane */
  async open(pane) {
    this.pane = pane;
    this.undoable = 0;
    const { scene } = pane;
    if (!scene?.layers.labels) return this.show();
    const { features, others, undoable } = await readCorrections(scene.id);
    if (pane.scene !== scene) return;
    pane.corrections = features;
    this.undoable = undoable;
    if (others) this.listeners.tell(`${others} more features in the corrections file are not from the viewer: they are kept, but not shown`);
    this.show();
    pane.redraw();
  }

  /**
   * Save one change, or say why it was not saved.
   * @param {{action: string, class?: string} & Record<string, any>} order
   * @returns {Promise<string>} id of the feature; empty if it was not saved
   */
  async order(order) {
    const { pane } = this;
    const scene = pane?.scene;
    if (!pane || !scene) return "";
    let changed;
    try {
      changed = await correct(scene.id, order);
    } catch (error) {
      this.failed = true;
      this.listeners.tell(`Not saved: ${/** @type {Error} */ (error).message}`, true);
      this.classes.named.delete(order.class ?? ""); // unless a correction has it, it is offered no more
      this.show();
      return "";
    }
    if (this.failed) this.listeners.tell(""); // what is said of an earlier change does not hold for this
    this.failed = false;
    const { id, feature, undoable } = changed;
    const at = this.made.lastIndexOf(scene.id);
    if (order.action !== "undo") this.made.push(scene.id);
    else if (at >= 0) this.made.splice(at, 1);
    if (pane.scene === scene) {
      const index = pane.corrections.findIndex((one) => one.id === id);
      const rest = pane.corrections.filter((one) => one.id !== id);
      if (feature) rest.splice(index < 0 ? rest.length : index, 0, feature);
      pane.corrections = rest;
      this.undoable = undoable;
      this.show();
      pane.redraw();
    }
    await this.listeners.saved(id, feature !== null);
    return id;
  }

  /** Undo the last change, on the slide where it was made: labelling a place may lead to another. */
  async undo() {
    const last = this.made.at(-1);
    if (last && last !== this.pane?.scene?.id) await this.listeners.open(last);
    if (this.undoable) return this.order({ action: "undo" });
    this.made = this.made.filter((slide) => slide !== last); // the server keeps those of a few slides
    this.listeners.tell("What was corrected on this slide before cannot be undone any more: remove it in the list.");
    this.show();
  }

  /** @param {string|null} name null if none was given */
  reclassify(name) {
    const region = this.pane?.picked;
    if (region && name) this.order({ action: "reclassify", region: region.id, class: name, new: this.classes.isNew(name) });
  }

  delete() {
    const region = this.pane?.picked;
    if (region) this.order({ action: "delete", region: region.id });
  }

  /** @param {number[][]} points of an area @param {string} name of its class */
  draw(points, name = this.classes.chosen) {
    return this.order(name === "Checked*" ? { action: "check", points } : { action: "draw", class: name, points, new: this.classes.isNew(name) });
  }

  show() {
    const { pane } = this;
    const corrections = pane?.corrections ?? [];
    byId("correction-count").textContent = corrections.length ? String(corrections.length) : "";
    const rows = corrections.map((one) => this.row(one));
    this.undoButton.disabled = !this.undoable && !this.made.length;
    if (pane) this.classes.offer(pane);
    const hint = "None. Click a region to change it, or draw an area.";
    byId("corrections").replaceChildren(...(rows.length ? rows : [make("li", { className: "empty" }, hint)]));
    this.showPicked();
    this.listeners.shown();
  }

  /** @param {Correction} one */
  row(one) {
    const scene = this.pane?.scene;
    const text = one.kind === "reclassified" ? `${one.from} → ${one.class}`
      : one.kind === "deleted" ? `Deleted ${one.from ?? ""}`
      : one.kind === "drawn" ? `Drawn ${one.class}` : "Checked area";
    const go = make("button", { className: "go", title: "Go there" },
      scene ? swatch(colorOf(scene, one)) : "", text, make("span", { className: "mm2" }, sayArea(one.mm2)));
    go.addEventListener("click", () => this.pane?.showBox(boxOf(one.rings)));
    const take = make("button", { className: "take", title: "Remove this correction", ariaLabel: `Remove: ${text}` }, "×");
    take.addEventListener("click", () => this.order({ action: "remove", id: one.id }));
    return make("li", {}, go, take);
  }

  /** Show the properties of the selected region. */
  showPicked() {
    const region = this.pane?.picked;
    const scene = this.pane?.scene;
    if (!region || !scene) return byId("picked").replaceChildren();
    const facts = make("dl");
    const correction = this.pane?.corrections.find((one) => one.id === region.id);
    const now = correction ? (correction.kind === "deleted" ? "deleted" : correction.class) : "";
    const lines = [
      ["Class", now ? `${region.class} → ${now}` : region.class], ["Area", sayArea(region.mm2)],
      ["Mean confidence", sayShare(region.confidence)], ["Id", region.id],
    ];
    for (const [name, value] of lines) {
      facts.append(make("dt", {}, name), make("dd", { className: name === "Id" ? "id" : "" }, value));
    }
    const chips = this.classes.chips((name) => `Change this region to ${name}`, (name) => this.reclassify(name));
    this.classes.names.forEach((name, i) =>
      chips[i].setAttribute("aria-pressed", String(name === (correction ? correction.class : region.class))));
    const remove = make("button", { className: "danger", title: "This region is wrong (Del)" }, "Delete region");
    remove.addEventListener("click", () => this.delete());
    byId("picked").replaceChildren(make("h3", {}, "Region"), facts, make("div", { className: "chips" }, ...chips), remove);
    byId("picked").scrollIntoView({ block: "nearest" });
  }
}
