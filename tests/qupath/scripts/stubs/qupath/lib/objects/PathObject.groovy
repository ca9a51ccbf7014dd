package qupath.lib.objects

import qupath.lib.objects.classes.PathClass

class PathObject {
    final UUID id
    final List<Double> box
    /** The feature that it was read from, if it was. */
    final Map feature
    PathObject(UUID id, List<Double> box = null, Map feature = null) {
        this.id = id
        this.box = box
        this.feature = feature
    }
    UUID getID() { id }
    boolean hasROI() { box != null || feature?.geometry != null }
    boolean isAnnotation() { feature?.properties?.objectType == 'annotation' }
    PathClass getPathClass() {
        def found = feature?.properties?.classification
        found == null ? null : PathClass.fromString(found.name, null)
    }
    def getROI() {
        if (box != null)
            return new ROI(box, 4)
        def ring = feature.geometry.coordinates[0]
        def (xs, ys) = [ring*.getAt(0), ring*.getAt(1)]
        return new ROI([xs.min(), ys.min(), xs.max() - xs.min(), ys.max() - ys.min()]*.toDouble(), ring.size() - 1)
    }
}

class ROI {
    final List<Double> box
    final int numPoints
    ROI(List<Double> box, int numPoints) { this.box = box; this.numPoints = numPoints }
    int getNumPoints() { numPoints }
    double getArea() { box[2] * box[3] }
    double getBoundsX() { box[0] }
    double getBoundsY() { box[1] }
    double getBoundsWidth() { box[2] }
    double getBoundsHeight() { box[3] }
}
