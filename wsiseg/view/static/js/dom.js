// @ts-check
/** Find and create elements; text is always inserted as text, never as HTML. */

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no element ${id}`);
  return /** @type {T} */ (element);
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node|string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** @param {number[]} color @returns {HTMLElement} */
export function swatch(color) {
  const element = make("span", { className: "swatch" });
  element.style.background = `rgb(${color.join(" ")})`;
  return element;
}

/** Format an area for people. @param {number|null|undefined} mm2 */
export function sayArea(mm2) {
  if (mm2 === null || mm2 === undefined || Number.isNaN(mm2)) return "–";
  if (mm2 === 0) return "0";
  if (mm2 < 0.01) return `${Math.round(mm2 * 1e6).toLocaleString("en")}\u00a0µm²`;
  return `${mm2.toFixed(mm2 < 10 ? 3 : 1)}\u00a0mm²`;
}

/** @param {number|null|undefined} share */
export const sayShare = (share) =>
  share === null || share === undefined ? "–" : `${Math.round(share * 100)}\u00a0%`;
