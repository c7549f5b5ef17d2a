# Compiles the scenario for hiredis and runs it.
#
# usage: sh hiredis.sh HOST PORT PREFIX

set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
gcc -O1 -Wall -Wextra -Werror -o "$place/hiredis" "$(dirname "$0")/hiredis.c" -lhiredis
"$place/hiredis" "$@"
