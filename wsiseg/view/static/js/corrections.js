// @ts-check
/** Corrections of the slide: the selected region, the list, and saving on the server. */
import { correct, readCorrections } from "./api.js";
import { Classes } from "./classes.js";
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
    this.classes = new Classes();
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
    if (others) this.tell(`${others} more features in the corrections file are not from the viewer: they are kept, but not shown`);
    this.show();
    pane.redraw();
  }

  /** Save one change, or say why it was not saved. @param {{action: string, class?: string} & Record<string, any>} order */
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
      this.classes.named.delete(order.class ?? ""); // unless a correction has it, it is offered no more
    }
    this.show();
    pane.redraw();
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

  /** @param {number[][]} points of an area of the class that is chosen */
  draw(points) {
    const { chosen: name } = this.classes;
    this.order(name === "Checked*" ? { action: "check", points } : { action: "draw", class: name, points, new: this.classes.isNew(name) });
  }

  show() {
    const { pane } = this;
    const corrections = pane?.corrections ?? [];
    byId("correction-count").textContent = corrections.length ? String(corrections.length) : "";
    const rows = corrections.map((one) => this.row(one));
    if (pane) this.classes.offer(pane);
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
    const chips = make("div", { className: "chips" });
    for (const name of this.classes.names) {
      const color = scene.classes.find((one) => one.name === name)?.color;
      const chip = make("button", { title: `Change this region to ${name}` }, color ? swatch(color) : "", name);
      chip.setAttribute("aria-pressed", String(name === (correction ? correction.class : region.class)));
      chip.addEventListener("click", () => this.reclassify(name));
      chips.append(chip);
    }
    const other = make("button", { title: "Change this region to a class that the map does not have" }, "New class …");
    other.addEventListener("click", async () => this.reclassify(await this.classes.ask()));
    chips.append(other);
    const remove = make("button", { className: "danger", title: "This region is wrong (Del)" }, "Delete region");
    remove.addEventListener("click", () => this.delete());
    byId("picked").replaceChildren(make("h3", {}, "Region"), facts, chips, remove);
    byId("picked").scrollIntoView({ block: "nearest" });
  }
}
