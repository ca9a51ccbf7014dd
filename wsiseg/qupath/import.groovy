/**
 * Import wsiseg's regions into QuPath (0.5 to 0.7).
 *
 * Open the slides in a QuPath project, open this file in the script editor, then
 *   Run > Run              for the image that is open, or
 *   Run > Run for project  for as many as you like;
 * without a window: QuPath script import.groovy --project=PROJECT.qpproj --save
 *
 * For an image "case.svs" it looks below OUTPUT/geojson for case.geojson, case.geojson.gz or
 * case.parts, also in sub-folders. Regions that the image has already (the same id) are left alone,
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

def findFolder = { String output ->
    def known = System.getProperty('wsiseg.output', output)
    def folder = new File(known, 'geojson')
    if (!folder.isDirectory() && QuPathGUI.getInstance() != null) {
        def chosen = FileChoosers.promptForDirectory('Output folder of wsiseg (it holds geojson/)', null)
        if (chosen != null) {
            System.setProperty('wsiseg.output', chosen.getAbsolutePath())
            folder = new File(chosen, 'geojson')
        }
    }
    return folder
}

// a/case.geojson.gz, a/case.parts -> case; null for what is no output
def baseName = { File file ->
    def match = file.getName() =~ (file.isDirectory() ? /(.+)\.parts/ : /(?i)(.+)\.geojson(\.gz)?/)
    return match.matches() ? match.group(1) : null
}

// How many folders above the file are named as those above the image.
def commonFolders = { File file, List<String> imageFolders ->
    def count = 0
    def folder = file.getParentFile()
    for (name in imageFolders.reverse()) {
        if (folder == null || folder.getName() != name)
            break
        count++
        folder = folder.getParentFile()
    }
    return count
}

def findOutputs = { File folder, String imageName ->
    def stem = imageName.replaceFirst(/\.[^.]+$/, '')
    def files = []
    folder.eachFileRecurse { file ->
        def base = baseName(file)
        if (base == null)
            return
        // Slides whose names collide keep their extension, and if need be a short hash.
        def tagged = base.startsWith(imageName + '-') && base.substring(imageName.length()) ==~ /-[0-9a-f]{8}/
        // Names too long for a file with an ending are cut, and end in a short hash.
        def cut = base.length() > 60 && base ==~ /(?s).+-[0-9a-f]{8}/ && imageName.startsWith(base[0..-10])
        if (base == stem || base == imageName || tagged || cut)
            files << file
    }
    return files.sort { it.getPath() }
}

// [x, y, width, height] of the selected annotations, else of the view, in pixels of the image
def findAreas = { imageData ->
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
def chooseParts = { File folder, List areas ->
    return folder.listFiles().sort { it.getName() }.findAll { file ->
        def match = file.getName() =~ /.* \[x=(-?\d+),y=(-?\d+),w=(\d+),h=(\d+)\]\.geojson\.gz/
        if (!match.matches())
            return false
        def (x, y, w, h) = (1..4).collect { match.group(it) as long }
        return areas.any { it[0] <= x + w && x <= it[0] + it[2] && it[1] <= y + h && y <= it[1] + it[3] }
    }
}

def imageData = getCurrentImageData()
if (imageData == null) {
    println 'wsiseg: open an image first'
    return
}
def server = imageData.getServer()
// "slide.scn - Series 0" is how QuPath names one image of several in a file.
def imageName = server.getMetadata().getName().replaceFirst(/(\.\w{2,5}) - .*$/, '$1')
def folder = findFolder(OUTPUT)
if (!folder.isDirectory()) {
    println "wsiseg: ${folder} does not exist; set OUTPUT at the top of this script"
    return
}

def outputs = findOutputs(folder, imageName)
if (outputs.isEmpty()) {
    println "wsiseg: ${imageName}: no file of this name below ${folder}"
    return
}
if (outputs.size() > 1) {
    def uris = server.getURIs()
    def folders = uris.isEmpty() ? [] : uris[0].getPath().tokenize('/')
    folders = folders.isEmpty() ? [] : folders[0..<-1]
    def best = outputs.collect { commonFolders(it, folders) }.max()
    outputs = outputs.findAll { commonFolders(it, folders) == best }
}
if (outputs.collect { new File(it.getParentFile(), baseName(it)) }.unique().size() > 1) {
    println "wsiseg: ${imageName}: ${outputs} all fit; import the right one by hand"
    return
}
// One slide in several forms: what an earlier run left is older.
def output = outputs.max { it.lastModified() }
(outputs - output).each { println "wsiseg: ${imageName}: ${it.getName()} is older than ${output.getName()}, left out" }

def files = [output]
if (output.isDirectory()) {
    def areas = findAreas(imageData)
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
def read = files.collectMany { PathIO.readObjects(it.toPath()) }
def fresh = read.findAll { known.add(it.getID()) }
if (!fresh.isEmpty()) {
    hierarchy.addObjects(fresh)
    resolveHierarchy(hierarchy)
    fireHierarchyUpdate(hierarchy)
}
println "wsiseg: ${imageName}: ${fresh.size()} regions imported, ${read.size() - fresh.size()} were there already"
