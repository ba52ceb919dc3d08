// Stands for the package tsx inside a VM, where files that end in .ts hold JavaScript already (see
// initramfs.ts): they only need to be known. NODE_OPTIONS requires it; `--import tsx` also works,
// and costs a thread.
require.extensions['.ts'] = require.extensions['.js']
