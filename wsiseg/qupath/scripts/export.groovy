/**
 * Export what you corrected or drew in QuPath (0.5 to 0.7), for `wsiseg label` and `wsiseg learn`.
 *
 * Open this file in QuPath's script editor, then
 *   Run > Run              for the image that is open, or
 *   Run > Run for project  for as many as you like;
 * without a window: QuPath script export.groovy --project=PROJECT.qpproj
 *
 * For an image of the file "case.svs" it writes OUTPUT/corrections/case.geojson with what differs
 * from OUTPUT/geojson: regions that you gave another class, drew or deleted, and areas of the class
 * Checked*, in which you looked at everything and left what is right. Nothing in QuPath changes. An
 * earlier file is kept beside it. An image that has no map gives all that you drew.
 */
import java.nio.file.Files
import qupath.fx.dialogs.FileChoosers
import qupath.lib.gui.QuPathGUI
import qupath.lib.io.GsonTools
import qupath.lib.io.PathIO
import static qupath.lib.scripting.QP.*

// The output folder of `wsiseg annotate`. If you moved it, write its new place here; if it is not
// there, you are asked for it, once a session.
def OUTPUT = @OUTPUT@

@FIND@
def classOf = { object -> object.getPathClass()?.toString() }

def near = { double a, double b -> Math.abs(a - b) <= 0.02 + 1e-5 * Math.abs(a) }

// Whether nobody touched an outline: QuPath keeps it to 0.01 px.
def sameShape = { a, b ->
    a.getNumPoints() == b.getNumPoints() && near(a.getArea(), b.getArea()) &&
        near(a.getBoundsX(), b.getBoundsX()) && near(a.getBoundsY(), b.getBoundsY()) &&
        near(a.getBoundsWidth(), b.getBoundsWidth()) && near(a.getBoundsHeight(), b.getBoundsHeight())
}

def gson = GsonTools.getInstance()

// One line of GeoJSON: QuPath's own outline and class, our id, and what became of the region.
def toFeature = { object, String state, UUID id ->
    def found = gson.fromJson(gson.toJson(object), Map)
    def geometry = [type: found.geometry.type, coordinates: found.geometry.coordinates]
    def rgb = object.getPathClass().getColor() ?: 0x404040
    def color = [rgb >> 16 & 255, rgb >> 8 & 255, rgb & 255]
    def properties = [objectType: 'annotation', classification: [name: classOf(object), color: color]]
    if (state != null)
        properties.metadata = [wsiseg: state]
    return gson.toJson([type: 'Feature', id: id.toString(), geometry: geometry, properties: properties])
}

def output = null
if (!outputs.isEmpty()) {
    output = chooseOutput()
    if (output == null)
        return
}
def parts = output == null ? [] : (output.isDirectory() ? output.listFiles().sort { it.getName() } : [output])
def present = getCurrentHierarchy().getAllObjects(false).findAll { it.hasROI() }
def byId = present.collectEntries { [it.getID(), it] }

def features = []
def counts = [reclassified: 0, drawn: 0, deleted: 0, checked: 0]
def add = { object, String state, UUID id = null ->
    features << toFeature(object, output == null ? null : state, id ?: object.getID())
    counts[state]++
}

def ours = [] as Set
parts.each { part ->
    def regions = PathIO.readObjects(part.toPath())
    ours.addAll(regions.collect { it.getID() })
    // A part of which nothing is here was not imported: nobody deleted its regions.
    if (!regions.any { byId.containsKey(it.getID()) })
        return
    regions.each { region ->
        def now = byId[region.getID()]
        if (now == null || now.getPathClass() == null)
            add(region, 'deleted')
        else if (!sameShape(region.getROI(), now.getROI())) {
            // The outline of ours is gone, and there is a new one: two features, so two ids.
            add(region, 'deleted')
            add(now, 'drawn', UUID.nameUUIDFromBytes("${region.getID()} reshaped".getBytes('UTF-8')))
        } else if (classOf(now) != classOf(region))
            add(now, 'reclassified')
    }
}
// Region* is a frame that says nothing: a place that was suggested and not labelled.
def fresh = present.findAll { it.isAnnotation() && !ours.contains(it.getID()) && classOf(it) != 'Region*' }
fresh.findAll { it.getPathClass() != null }.each {
    add(it, classOf(it).toLowerCase().startsWith('checked') ? 'checked' : 'drawn')
}
def unclassified = fresh.count { it.getPathClass() == null }
if (unclassified > 0)
    println "wsiseg: ${imageName}: ${unclassified} annotations have no class and are left out"

def base = output == null ? fileName.replaceFirst(/\.[^.]+$/, '') : baseName(output)
def below = output == null ? '' : folder.toPath().relativize(output.getParentFile().toPath()).toString()
def target = new File(new File(folder.getParentFile(), 'corrections'), "${below}/${base}.geojson")
// The size tells a later reader whether it was drawn on an image of its own magnification.
def size = "{\"size\":[${server.getWidth()},${server.getHeight()}]}"
def text = '{"type":"FeatureCollection","wsiseg":' + size + ',"features":[\n' + features.join(',\n') + '\n]}\n'
if (target.exists() && target.getText('UTF-8') == text) {
    println "wsiseg: ${imageName}: ${target.getName()} is up to date"
    return
}
// Nothing of yours is written over: the file of before becomes case.geojson.old, .old2 and so on.
if (target.exists()) {
    def number = 1
    def older = new File("${target}.old")
    while (older.exists())
        older = new File("${target}.old${++number}")
    Files.move(target.toPath(), older.toPath())
    println "wsiseg: ${imageName}: the earlier ${target.getName()} is now ${older.getName()}"
}
if (features.isEmpty()) {
    println "wsiseg: ${imageName}: nothing was corrected or drawn"
    return
}
target.getParentFile().mkdirs()
def unfinished = new File(target.getParentFile(), ".${target.getName()}.part")
unfinished.setText(text, 'UTF-8')
Files.move(unfinished.toPath(), target.toPath())
println "wsiseg: ${imageName}: " + counts.findAll { it.value > 0 }.collect { "${it.value} ${it.key}" }.join(', ') + " to ${target}"
