// @ts-check
/** The changes that this page made, the last one last; only these are undone. A reload of the page keeps them. */

/** @typedef {{slide: string, change: string}} Made  Ids of both. */

const KEY = "wsiseg.changes";
const MOST = 200; // as many as the server keeps

/** @returns {Made[]} */
export function recallMade() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
  } catch {
    return []; // a browser may forbid to store anything
  }
}

/** @param {Made[]} made @returns {Made[]} */
export function keepMade(made) {
  const last = made.slice(-MOST);
  try {
    sessionStorage.setItem(KEY, JSON.stringify(last));
  } catch {
    // they are kept until the page is left
  }
  return last;
}
