// @ts-check
/** The panel of what is selected: its facts, the classes that it may have, and a button to remove it. */
import { byId, make, sayArea, sayShare } from "./dom.js";
import { isArea, isEarlier } from "./picking.js";
import { sayEarlier } from "./rows.js";

/** @typedef {import("./types.js").Correction} Correction */
/** @typedef {import("./classes.js").Classes} Classes */
/** @typedef {{change: (name: string|null) => void, remove: () => void, keep: () => void}} Acts */

const BELOW = "Click there again to select what lies below.";

/**
 * @param {import("./types.js").Picked|null} one
 * @param {Correction|null} correction  Of that area, or of that region if it has one.
 * @param {Classes} classes @param {Acts} acts
 */
export function showPicked(one, correction, classes, acts) {
  const parts = !one ? []
    : isEarlier(one) ? describeEarlier(one, acts)
    : isArea(one) ? describeArea(one, classes, acts)
    : describeRegion(one, correction, classes, acts);
  byId("picked").replaceChildren(...parts);
  byId("picked").scrollIntoView({ block: "nearest" });
}

/** @param {import("./types.js").Earlier} one @param {Acts} acts */
function describeEarlier(one, acts) {
  const hint = (/** @type {string} */ text) => make("p", { className: "empty" }, text);
  const parts = [make("h3", {}, "Earlier correction"), make("p", {}, `${sayEarlier(one)}.`), list([["Area", sayArea(one.mm2)]])];
  if (!one.copy) return [...parts, hint("It is about the earlier map, and cannot be kept for this one: look at this map, and correct or check it anew.")];
  const keep = make("button", { title: "Keep it among the corrections of this run (C)" }, "Keep ", make("kbd", {}, "C"));
  keep.addEventListener("click", acts.keep);
  return [...parts, keep, hint(BELOW)];
}

/** @param {Correction} area drawn or checked @param {Classes} classes @param {Acts} acts */
function describeArea(area, classes, acts) {
  const below = make("p", { className: "empty" }, BELOW);
  const remove = makeRemove("Remove area", "Remove this area (Del)", acts);
  if (area.kind === "checked") return [make("h3", {}, "Checked area"), list([["Area", sayArea(area.mm2)]]), remove, below];
  const facts = list([["Class", area.class], ["Area", sayArea(area.mm2)]]);
  return [make("h3", {}, "Drawn area"), facts, makeChips("area", area.class, classes, acts), remove, below];
}

/** @param {import("./types.js").Region} region @param {Correction|null} correction @param {Classes} classes @param {Acts} acts */
function describeRegion(region, correction, classes, acts) {
  const now = correction ? (correction.kind === "deleted" ? "deleted" : correction.class) : "";
  const facts = listFacts(region, now ? `${region.class} → ${now}` : region.class);
  const chips = makeChips("region", (correction ?? region).class, classes, acts);
  return [make("h3", {}, "Region"), facts, chips, makeRemove("Delete region", "This region is wrong (Del)", acts)];
}

/** Show a region of the run beside, which is looked at but not corrected. @param {import("./types.js").Region} region @param {string} run */
export function showFacts(region, run) {
  const hint = make("p", { className: "empty" }, "Only the map on the left can be corrected.");
  const title = make("h3", {}, "Region ", make("span", {}, `of ${run}`));
  byId("picked").replaceChildren(title, listFacts(region, region.class), hint);
  byId("picked").scrollIntoView({ block: "nearest" });
}

/** @param {import("./types.js").Region} region @param {string} name of its class */
function listFacts(region, name) {
  return list([
    ["Class", name], ["Area", sayArea(region.mm2)],
    ["Mean confidence", sayShare(region.confidence)], ["Id", region.id],
  ]);
}

/** @param {string[][]} lines each a name and a value */
function list(lines) {
  return make("dl", {}, ...lines.flatMap(([name, value]) =>
    [make("dt", {}, name), make("dd", { className: name === "Id" ? "id" : "" }, value)]));
}

/** @param {string} what @param {string} current @param {Classes} classes @param {Acts} acts */
function makeChips(what, current, classes, acts) {
  const chips = classes.chips((name) => `Change this ${what} to ${name}`, acts.change);
  classes.names.forEach((name, i) => chips[i].setAttribute("aria-pressed", String(name === current)));
  return make("div", { className: "chips" }, ...chips);
}

/** @param {string} text @param {string} title @param {Acts} acts */
function makeRemove(text, title, acts) {
  const button = make("button", { className: "danger", title }, text);
  button.addEventListener("click", acts.remove);
  return button;
}
