// @ts-check
/** Elements made and found; text only ever goes in as text. */

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return /** @type {T} */ (found);
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node|string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** @param {number[]} color @returns {HTMLElement} */
export function swatch(color) {
  const made = make("span", { className: "swatch" });
  made.style.background = `rgb(${color.join(" ")})`;
  return made;
}

/** Areas as a person reads them. @param {number|null|undefined} mm2 */
export function sayArea(mm2) {
  if (mm2 === null || mm2 === undefined || Number.isNaN(mm2)) return "–";
  if (mm2 === 0) return "0";
  if (mm2 < 0.01) return `${Math.round(mm2 * 1e6).toLocaleString("en")}\u00a0µm²`;
  return `${mm2.toFixed(mm2 < 10 ? 3 : 1)}\u00a0mm²`;
}

/** @param {number|null|undefined} share */
export const sayShare = (share) =>
  share === null || share === undefined ? "–" : `${Math.round(share * 100)}\u00a0%`;
