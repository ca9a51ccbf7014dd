package qupath.lib.scripting

import qupath.lib.objects.PathObject
import qupath.lib.objects.classes.PathClass

/** One image, named -Dstub.image; what was added is printed at the end, and kept in -Dstub.kept. */
class QP {
    static final List<PathObject> OBJECTS = []
    static final IMAGE = new ImageData()
    static final KEPT = new File(System.getProperty('stub.kept'))

    static {
        if (KEPT.exists())
            KEPT.eachLine { OBJECTS << new PathObject(UUID.fromString(it)) }
        def drawn = System.getProperty('stub.objects')
        if (drawn != null)
            OBJECTS.addAll(qupath.lib.io.PathIO.readObjects(new File(drawn).toPath()))
    }

    static getCurrentHierarchy() { IMAGE.getHierarchy() }

    static getCurrentImageData() { System.getProperty('stub.image') == null ? null : IMAGE }
    static getSelectedObjects() {
        def text = System.getProperty('stub.selected')
        text == null ? [] : [new PathObject(UUID.randomUUID(), text.tokenize(',')*.toDouble())]
    }
    static getProject() { new Project() }
    static void resolveHierarchy(hierarchy) { println 'resolved' }
    static void fireHierarchyUpdate(hierarchy) {
        KEPT.text = OBJECTS.collect { it.getID().toString() }.join('\n')
        PathClass.KNOWN.each { name, it -> println "class ${name} ${it.getColor() & 0xffffff}" }
    }
}

class Project {
    def getPathClasses() {
        [PathClass.fromString('Stroma', 0x123456), PathClass.fromString('Necrosis', null)]
    }
}

class ImageData {
    def getServer() { new Server() }
    def getHierarchy() { new Hierarchy() }
}

class Server {
    def getMetadata() { this }
    String getName() { System.getProperty('stub.image') }
    int getWidth() { 20000 }
    int getHeight() { 10000 }
    List<URI> getURIs() { [new URI(System.getProperty('stub.uri', 'file:/slides/case.svs'))] }
}

class Hierarchy {
    List<PathObject> getAllObjects(boolean root) { QP.OBJECTS }
    void addObjects(Collection<PathObject> objects) { QP.OBJECTS.addAll(objects) }
}
