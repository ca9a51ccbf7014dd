// @ts-check
/** A scale bar with a round number of micrometres. */

/** @param {number} umPerPixel @param {number} [maxPixels] */
export function scaleBar(umPerPixel, maxPixels = 140) {
  const limit = umPerPixel * maxPixels;
  const power = 10 ** Math.floor(Math.log10(limit));
  const um = [5, 2, 1].map((times) => times * power).find((length) => length <= limit) ?? power;
  const text = um >= 1000 ? `${um / 1000} mm` : um >= 1 ? `${um} µm` : `${Math.round(um * 1000)} nm`;
  return { um, text, pixels: um / umPerPixel };
}
