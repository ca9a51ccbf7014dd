// @ts-check
/** Rows of the lists of corrections, and what is said of one. */
import { colorOf } from "./correction_marks.js";
import { make, sayArea, swatch } from "./dom.js";

/** @typedef {import("./types.js").Correction} Correction */

/**
 * @param {import("./types.js").Scene} scene @param {Correction} one
 * @param {() => void} act  Go there and select it.
 * @param {HTMLElement} [button]  What else may be done with it.
 */
export function makeRow(scene, one, act, button) {
  const go = make("button", { className: "go", title: "Go there and select it" },
    swatch(colorOf(scene, one)), sayWhat(one), make("span", { className: "mm2" }, sayArea(one.mm2)));
  go.dataset.id = one.id;
  go.addEventListener("click", act);
  return make("li", {}, go, button ?? "");
}

/** The class that its region had in the map. @param {Correction} one */
export const sayFrom = ({ from, earlier }) => `${from ?? ""}${earlier ? " (of an earlier map)" : ""}`;

/** @param {Correction} one */
export function sayWhat(one) {
  const { kind, class: name } = one;
  if (kind === "reclassified") return `${sayFrom(one)} → ${name}`;
  if (kind === "deleted") return `Deleted ${sayFrom(one)}`;
  return kind === "drawn" ? `Drawn ${name}` : "Checked area";
}

/** What an earlier correction says of its place. @param {Correction} one */
export function sayEarlier({ kind, from, class: name }) {
  if (kind === "reclassified") return `${name}, changed from ${from} on the earlier map`;
  if (kind === "deleted") return `Not ${from}, deleted on the earlier map`;
  return kind === "drawn" ? `${name}, drawn on the earlier map` : "Checked on the earlier map";
}
