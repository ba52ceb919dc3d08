// Inside a VM, files that end in .ts hold JavaScript already (see initramfs.ts): they only need to be known.
require.extensions['.ts'] = require.extensions['.js']
