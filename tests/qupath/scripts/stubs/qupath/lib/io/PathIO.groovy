package qupath.lib.io

import groovy.json.JsonSlurper
import java.nio.file.Path
import java.util.zip.GZIPInputStream
import qupath.lib.objects.PathObject

class PathIO {
    static List<PathObject> readObjects(Path path) {
        def stream = new FileInputStream(path.toFile())
        if (path.toString().endsWith('.gz'))
            stream = new GZIPInputStream(stream)
        def features = new JsonSlurper().parse(stream, 'UTF-8').features
        return features.collect { new PathObject(UUID.fromString(it.id), null, it) }
    }
}
