#!/bin/bash
# witness.sh DOMAIN FOLDER: copies each disk of a running domain as it was frozen by the snapshot or backup job that is
# now open, to FOLDER/<number of the call>/<disk>.raw, by libvirt and qemu-img alone.
set -euo pipefail
domain=$1 folder=$2
number=$(find "$folder" -mindepth 1 -maxdepth 1 -type d | wc -l)
copy=$folder/$number
mkdir "$copy"
virsh() { command virsh -q -c qemu:///system "$@"; }

if xml=$(virsh backup-dumpxml "$domain" 2>/dev/null); then
  socket=$(sed -n "s/.*<server .*socket='\([^']*\)'.*/\1/p" <<<"$xml")
  sed -n "s/.*<disk name='\([^']*\)' backup='yes'.*exportname='\([^']*\)'.*/\1 \2/p" <<<"$xml" |
    while read -r disk export; do
      qemu-img convert -f raw -O raw "nbd+unix:///$export?socket=$socket" "$copy/$disk.raw"
    done
else
  virsh domblklist "$domain" | while read -r disk overlay; do
    info=$(qemu-img info -U "$overlay")
    base=$(sed -n 's/^backing file: \([^(]*[^ (]\).*/\1/p' <<<"$info")
    format=$(sed -n 's/^backing file format: //p' <<<"$info")
    qemu-img convert -U -f "$format" -O raw "$base" "$copy/$disk.raw"
  done
fi
