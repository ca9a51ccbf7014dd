/**
 * Import wsiseg's regions into QuPath (0.5 to 0.7).
 *
 * Open the slides in a QuPath project, open this file in the script editor, then
 *   Run > Run              for the image that is open, or
 *   Run > Run for project  for as many as you like;
 * without a window: QuPath script import.groovy --project=PROJECT.qpproj --save
 *
 * For an image of the file "case.svs", whatever the project calls it, it looks below OUTPUT/geojson
 * for case.geojson, case.geojson.gz or case.parts, also in sub-folders. Regions that the image has already (the same id) are left alone,
 * so it can be run again; nothing is deleted. A slide with too many vertices for one file comes in
 * parts: those are imported that the selected annotations touch or, with none selected, the view.
 */
import qupath.fx.dialogs.FileChoosers
import qupath.lib.common.ColorTools
import qupath.lib.gui.QuPathGUI
import qupath.lib.io.PathIO
import qupath.lib.objects.classes.PathClass
import static qupath.lib.scripting.QP.*

// The output folder of `wsiseg annotate`. If you moved it, write its new place here; if it is not
// there, you are asked for it, once a session.
def OUTPUT = @OUTPUT@

// Class colours, as in the pictures and tables of the report, for classes that have none here yet.
def COLORS = [
@COLORS@
]

@FIND@
// [x, y, width, height] of the selected annotations, else of the view, in pixels of the image
def findAreas = {
    def areas = getSelectedObjects().findAll { it.hasROI() }.collect {
        def roi = it.getROI()
        [roi.getBoundsX(), roi.getBoundsY(), roi.getBoundsWidth(), roi.getBoundsHeight()]
    }
    def viewer = QuPathGUI.getInstance()?.getViewer()
    if (areas.isEmpty() && viewer != null && viewer.getImageData() == imageData) {
        def box = viewer.getDisplayedRegionShape().getBounds2D()
        areas << [box.getX(), box.getY(), box.getWidth(), box.getHeight()]
    }
    return areas
}

// The parts that touch an area; a part is named by its box.
def chooseParts = { File parts, List areas ->
    return parts.listFiles().sort { it.getName() }.findAll { file ->
        def match = file.getName() =~ /.* \[x=(-?\d+),y=(-?\d+),w=(\d+),h=(\d+)\]\.geojson\.gz/
        if (!match.matches())
            return false
        def (x, y, w, h) = (1..4).collect { match.group(it) as long }
        return areas.any { it[0] <= x + w && x <= it[0] + it[2] && it[1] <= y + h && y <= it[1] + it[3] }
    }
}

if (outputs.isEmpty()) {
    def also = fileName == imageName ? '' : " nor of its file, ${fileName},"
    println "wsiseg: ${imageName}: no file of this name${also} below ${folder}"
    return
}
def output = chooseOutput()
if (output == null)
    return

def files = [output]
if (output.isDirectory()) {
    def areas = findAreas()
    files = chooseParts(output, areas)
    println "wsiseg: ${imageName}: ${files.size()} of ${output.list().length} parts lie in " +
        (areas.isEmpty() ? 'no area: open the image and select an annotation' : 'the selection or view')
}

// A class that the project knows keeps its colour; 64, 64, 64 is what QuPath gives for want of one.
getProject()?.getPathClasses()
COLORS.each { name, rgb ->
    def color = ColorTools.packRGB(rgb[0], rgb[1], rgb[2])
    def pathClass = PathClass.fromString(name, color)
    if (pathClass.getColor() == null || pathClass.getColor() == ColorTools.packRGB(64, 64, 64))
        pathClass.setColor(color)
}
def hierarchy = imageData.getHierarchy()
def known = hierarchy.getAllObjects(false).collect { it.getID() } as Set
def before = new HashSet(known)
def read = files.collectMany { PathIO.readObjects(it.toPath()) }
def fresh = read.findAll { known.add(it.getID()) }
if (!fresh.isEmpty()) {
    hierarchy.addObjects(fresh)
    // Regions of ours never overlap, and resolving thousands takes minutes: only among others.
    before.removeAll(read.collect { it.getID() })
    if (!before.isEmpty())
        resolveHierarchy(hierarchy)
    fireHierarchyUpdate(hierarchy)
}
println "wsiseg: ${imageName}: ${fresh.size()} regions imported, ${read.size() - fresh.size()} were there already"
