package qupath.lib.objects.classes

/** As in QuPath: one instance a name; the colour given counts for a new one only. */
class PathClass {
    static final Map<String, PathClass> KNOWN = [:]
    final String name
    Integer color
    PathClass(String name, Integer color) { this.name = name; this.color = color }
    String toString() { name }
    static PathClass fromString(String name, Integer color) {
        KNOWN.computeIfAbsent(name) { new PathClass(name, color ?: ((255 << 24) | 0x404040)) }
    }
}
