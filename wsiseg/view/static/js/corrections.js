// @ts-check
/** The corrections of the slide: picked region, list, and what the server is asked to save. */
import { correct, readCorrections } from "./api.js";
import { colorOf } from "./correction_marks.js";
import { byId, make, sayArea, sayShare, swatch } from "./dom.js";
import { boxOf } from "./shapes.js";

/** @typedef {import("./pane.js").Pane} Pane */
/** @typedef {import("./types.js").Correction} Correction */


export class Corrections {
  /** @param {(text: string, bad?: boolean) => void} tell @param {() => void} saved */
  constructor(tell, saved) {
    this.tell = tell;
    this.saved = saved;
    /** @type {HTMLButtonElement} */
    this.undoButton = byId("undo");
    this.undoButton.addEventListener("click", () => this.order({ action: "undo" }));
  }

  /** @param {Pane} pane */
  async open(pane) {
    this.pane = pane;
    const { scene } = pane;
    if (!scene?.layers.labels) return this.show();
    const { features, others, undoable } = await readCorrections(scene.id);
    if (pane.scene !== scene) return;
    pane.corrections = features;
    this.undoButton.disabled = undoable === 0;
    if (others) this.tell(`${others} more features of the corrections file are not the viewer's: they are kept, not shown`);
    this.show();
    pane.redraw();
  }

  /** Have one change saved; say why if it is not. @param {object} order */
  async order(order) {
    const { pane } = this;
    const scene = pane?.scene;
    if (!pane || !scene) return;
    try {
      const { id, feature, undoable } = await correct(scene.id, order);
      if (pane.scene !== scene) return;
      const at = pane.corrections.findIndex((one) => one.id === id);
      const rest = pane.corrections.filter((one) => one.id !== id);
      if (feature) rest.splice(at < 0 ? rest.length : at, 0, feature);
      pane.corrections = rest;
      this.undoButton.disabled = undoable === 0;
      this.saved();
    } catch (error) {
      this.tell(`Not saved: ${/** @type {Error} */ (error).message}`, true);
    }
    this.show();
    pane.redraw();
  }

  /** @param {string} name */
  reclassify(name) {
    const region = this.pane?.picked;
    if (region) this.order({ action: "reclassify", region: region.id, class: name });
  }

  delete() {
    const region = this.pane?.picked;
    if (region) this.order({ action: "delete", region: region.id });
  }

  /** @param {string} name @param {number[][]} points */
  draw(name, points) {
    this.order(name === "Checked*" ? { action: "check", points } : { action: "draw", class: name, points });
  }

  show() {
    const { pane } = this;
    const corrections = pane?.corrections ?? [];
    byId("correction-count").textContent = corrections.length ? String(corrections.length) : "";
    const rows = corrections.map((one) => this.row(one));
    const hint = "None. Click a region to change it, or draw an area.";
    byId("corrections").replaceChildren(...(rows.length ? rows : [make("li", { className: "empty" }, hint)]));
    this.showPicked();
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
    const take = make("button", { className: "take", title: "Take this correction back", ariaLabel: `Take back: ${text}` }, "×");
    take.addEventListener("click", () => this.order({ action: "remove", id: one.id }));
    return make("li", {}, go, take);
  }

  /** The card of the region that was clicked. */
  showPicked() {
    const region = this.pane?.picked;
    const scene = this.pane?.scene;
    if (!region || !scene) return byId("picked").replaceChildren();
    const facts = make("dl");
    const known = this.pane?.corrections.find((one) => one.id === region.id);
    const now = known ? (known.kind === "deleted" ? "deleted" : known.class) : "";
    const lines = [
      ["Class", now ? `${region.class} → ${now}` : region.class], ["Area", sayArea(region.mm2)],
      ["Mean confidence", sayShare(region.confidence)], ["Id", region.id],
    ];
    for (const [name, value] of lines) {
      facts.append(make("dt", {}, name), make("dd", { className: name === "Id" ? "id" : "" }, value));
    }
    const chips = make("div", { className: "chips" });
    for (const { name, color } of scene.classes.filter((one) => one.name !== "Unsure")) {
      const chip = make("button", { title: `This region is ${name}` }, swatch(color), name);
      chip.setAttribute("aria-pressed", String(name === (known ? known.class : region.class)));
      chip.addEventListener("click", () => this.reclassify(name));
      chips.append(chip);
    }
    const gone = make("button", { className: "danger", title: "This region should not be (Del)" }, "Delete region");
    gone.addEventListener("click", () => this.delete());
    byId("picked").replaceChildren(make("h3", {}, "Region"), facts, chips, gone);
    byId("picked").scrollIntoView({ block: "nearest" });
  }
}
