package qupath.lib.gui

import qupath.lib.scripting.QP

/** Only there if -Dstub.view=x,y,w,h is given. */
class QuPathGUI {
    static QuPathGUI getInstance() { System.getProperty('stub.view') == null ? null : new QuPathGUI() }
    def getViewer() {
        def (x, y, w, h) = System.getProperty('stub.view').tokenize(',')*.toDouble()
        return [
            getImageData: { -> QP.getCurrentImageData() },
            getDisplayedRegionShape: { -> new java.awt.geom.Rectangle2D.Double(x, y, w, h) },
        ] as Viewer
    }
}

interface Viewer {
    Object getImageData()
    java.awt.Shape getDisplayedRegionShape()
}
