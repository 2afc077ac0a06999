#!/bin/sh
# A CPython whose functions a profiler can see: built with frame pointers, which Debian's are not, of
# the source that Debian has. Takes two minutes.
#     tests/cpython.sh FOLDER
set -eu
folder=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$folder"
# Lists of its own: nothing of this machine's apt changes.
mkdir -p apt/lists/partial apt/cache/archives/partial
key=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb-src [signed-by=$key] http://deb.debian.org/debian trixie main" >apt/sources.list
set -- -qq -o Dir::Etc::SourceList="$folder/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
  -o Dir::State::Lists="$folder/apt/lists" -o Dir::Cache="$folder/apt/cache" \
  -o APT::Sandbox::User=root
apt-get "$@" update
apt-get "$@" source --download-only --only-source python3.13
mkdir -p build
tar -xJf python3.13_*.orig.tar.xz --strip-components=1 -C build
rm -rf apt python3.13_*
cd build
flags='-O1 -fno-omit-frame-pointer -mno-omit-leaf-frame-pointer'
{ ./configure -q --without-ensurepip --disable-test-modules CFLAGS="$flags" && make -s -j2; } \
  >../build.log 2>&1 || { tail -20 ../build.log >&2; exit 1; }
ln -sf build/python ../python
