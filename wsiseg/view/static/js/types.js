// @ts-check
/**
 * Types shared by the modules. The *frame* is the slide in square pixels of `mpp` µm; all
 * coordinates of the server are in it. The address and panes use µm, as runs may differ in mpp.
 *
 * @typedef {object} Slide  An entry of the list.
 * @property {string} id
 * @property {string} name
 * @property {string} status
 * @property {string} note
 * @property {string} error
 * @property {boolean} viewable
 * @property {boolean} corrected
 * @property {number|null} tissue_mm2
 * @property {Record<string, number>} class_mm2
 *
 * @typedef {{rank: number, slide: string, labelled: boolean}} Suggestion  A place to label; slide is an id.
 * @typedef {{title: string, slides: Slide[], places: Suggestion[], learn: string}} Run
 *   Places by rank, and the command that learns from the corrections.
 * @typedef {{name: string, color: number[], mm2: number|null}} ClassInfo
 *
 * @typedef {object} Scene  An open slide.
 * @property {string} id
 * @property {string} name
 * @property {string} note
 * @property {string} missing
 * @property {string} version  Of the map; another one after it was made again.
 * @property {number} width
 * @property {number} height
 * @property {number} mpp
 * @property {number} tile
 * @property {number} coarsest
 * @property {number} finest
 * @property {Record<string, string>} layers
 * @property {string} scores
 * @property {number} scored
 * @property {ClassInfo[]} classes
 * @property {number|null} tissue_mm2
 *
 * @typedef {object} Region
 * @property {number} index
 * @property {string} id
 * @property {string} class
 * @property {number|null} mm2
 * @property {number|null} confidence
 * @property {number[]} box  Left, top, right, bottom.
 * @property {number[][]=} rings  Each x, y, x, y, ...; filled by the even-odd rule.
 *
 * @typedef {object} Correction
 * @property {string} id
 * @property {string} kind  reclassified, deleted, drawn or checked
 * @property {string} class
 * @property {number[]|null} color
 * @property {string|null} from  Class in the map.
 * @property {boolean} earlier  Whether its region is of an earlier map.
 * @property {number[][]} rings
 * @property {number} mm2
 *
 * @typedef {Correction & {copy: string|null, box: number[]}} Earlier  A correction of an earlier run.
 *   `copy` is the id of its copy, once it was kept; null if it cannot be.
 *
 * @typedef {Region|Correction|Earlier} Picked  What is selected: a region of the map, a drawn or
 *   checked area, or any correction of an earlier run.
 *
 * @typedef {object} Change  What was saved.
 * @property {{id: string, feature: Correction|null}[]} edits  Corrections as they are now; null for one that is gone.
 * @property {string} change  Names the change, to undo it; empty for one that undoes another.
 * @property {string} was  Version of the file before, as others may have changed it.
 * @property {string} version  Of the file now.
 *
 * @typedef {{box: number[], labelled: boolean, current: boolean}} Frame  A place on the open slide.
 *
 * @typedef {{x: number, y: number, um: number}} Place  Centre in µm, and µm per screen pixel.
 * @typedef {{scale: number, x: number, y: number, width: number, height: number}} View
 *   Screen pixels per frame pixel, screen position of frame (0, 0), and size of the pane.
 */
export {};
