package qupath.lib.io

import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import qupath.lib.objects.PathObject

/** As Gson does, numbers of a map become doubles. */
class GsonTools {
    static GsonTools getInstance() { new GsonTools() }
    String toJson(value) { JsonOutput.toJson(value instanceof PathObject ? value.feature : value) }
    Map fromJson(String text, Class type) { doubled(new JsonSlurper().parseText(text)) }
    private doubled(value) {
        if (value instanceof Map)
            return value.collectEntries { name, one -> [name, doubled(one)] }
        if (value instanceof List)
            return value.collect { doubled(it) }
        return value instanceof Number ? value.toDouble() : value
    }
}
