package qupath.lib.objects

class PathObject {
    final UUID id
    final List<Double> box
    PathObject(UUID id, List<Double> box = null) { this.id = id; this.box = box }
    UUID getID() { id }
    boolean hasROI() { box != null }
    def getROI() { new ROI(box) }
}

class ROI {
    final List<Double> box
    ROI(List<Double> box) { this.box = box }
    double getBoundsX() { box[0] }
    double getBoundsY() { box[1] }
    double getBoundsWidth() { box[2] }
    double getBoundsHeight() { box[3] }
}
