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

def stemOf = { String name -> name.replaceFirst(/\.[^.]+$/, '') }

def findOutputs = { File folder, String imageName ->
    def stem = stemOf(imageName)
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

// A project's entry may have been renamed since; the file has not.
def uris = server.getURIs()
def steps = uris.isEmpty() ? [] : (uris[0].getPath() ?: '').tokenize('/')
def fileName = steps.isEmpty() ? imageName : steps[-1]
def outputs = findOutputs(folder, fileName)
def wanted = outputs ? fileName : imageName
outputs = outputs ?: findOutputs(folder, imageName)

// The one output of the image; null, and a line why, if there are several.
def chooseOutput = {
    def left = outputs
    if (left.size() > 1) {
        def folders = steps.isEmpty() ? [] : steps[0..<-1]
        def best = left.collect { commonFolders(it, folders) }.max()
        left = left.findAll { commonFolders(it, folders) == best }
    }
    // Beside an output with this extension, one without belongs to a slide with another.
    def without = left.findAll { baseName(it) == stemOf(wanted) && baseName(it) != wanted }
    if (without.size() < left.size())
        left = left - without
    if (left.collect { new File(it.getParentFile(), baseName(it)) }.unique().size() > 1) {
        println "wsiseg: ${imageName}: ${left} all fit; import the right one by hand"
        return null
    }
    // One slide in several forms: what an earlier run left is older.
    def latest = left.max { it.lastModified() }
    (left - latest).each { println "wsiseg: ${imageName}: ${it.getName()} is older than ${latest.getName()}, left out" }
    return latest
}
