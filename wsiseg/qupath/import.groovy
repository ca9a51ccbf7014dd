/**
 * Import wsiseg's regions into QuPath (0.5 to 0.7).
 *
 * Open the slides in a QuPath project, open this file in the script editor, then
 *   Run > Run              for the image that is open, or
 *   Run > Run for project  for as many as you like.
 *
 * For an image "case.svs" it looks below OUTPUT/geojson for case.geojson or case.geojson.gz, also in
 * sub-folders. Regions that the image has already (the same id) are left alone, so it can be run
 * again; nothing is deleted.
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

// Class colours, as in the pictures and tables of the report.
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

// a/case.geojson.gz -> case
def baseName = { File file -> file.getName().replaceFirst(/(?i)\.(geojson|json)(\.gz)?$/, '') }

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

def findFiles = { File folder, String imageName ->
    def stem = imageName.replaceFirst(/\.[^.]+$/, '')
    def files = []
    folder.eachFileRecurse(groovy.io.FileType.FILES) { file ->
        if (!(file.getName().toLowerCase() ==~ /.*\.geojson(\.gz)?/))
            return
        def base = baseName(file)
        // Slides whose names collide keep their extension, and if need be a short hash.
        def tagged = base.startsWith(imageName + '-') && base.substring(imageName.length()) ==~ /-[0-9a-f]{8}/
        if (base == stem || base == imageName || tagged)
            files << file
    }
    return files.sort { it.getPath() }
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

def files = findFiles(folder, imageName)
if (files.size() > 1) {
    def uris = server.getURIs()
    def folders = uris.isEmpty() ? [] : uris[0].getPath().tokenize('/')
    folders = folders.isEmpty() ? [] : folders[0..<-1]
    def best = files.collect { commonFolders(it, folders) }.max()
    files = files.findAll { commonFolders(it, folders) == best }
}
if (files.isEmpty()) {
    println "wsiseg: ${imageName}: no file of this name below ${folder}"
    return
}
if (files.size() > 1) {
    println "wsiseg: ${imageName}: ${files} all fit; import the right one by hand"
    return
}

COLORS.each { name, rgb ->
    PathClass.fromString(name).setColor(ColorTools.packRGB(rgb[0], rgb[1], rgb[2]))
}
def hierarchy = imageData.getHierarchy()
def known = hierarchy.getAllObjects(false).collect { it.getID() } as Set
def read = PathIO.readObjects(files[0].toPath())
def fresh = read.findAll { !known.contains(it.getID()) }
if (!fresh.isEmpty()) {
    hierarchy.addObjects(fresh)
    resolveHierarchy(hierarchy)
    fireHierarchyUpdate(hierarchy)
}
println "wsiseg: ${imageName}: ${fresh.size()} regions imported, ${read.size() - fresh.size()} were there already"
