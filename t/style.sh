#!/bin/sh
#
# Copyright (C) nginx AI gateway authors
#
# Static checks of the coding style: prints what is wrong as FILE:LINE: WHAT
# and exits with 1.  Of the C code all rules, of scripts those on white space.

cd "$(dirname "$0")/.." || exit 2

c_files=$(find modules t tools -name '*.[ch]' ! -path '*/node_modules/*' \
          2> /dev/null | LC_ALL=C sort)
other_files=$(find modules t tools .ci build.sh config \
              -name '*.pm' -o -name '*.t' -o -name '*.pl' -o -name '*.sh' \
              -o -name config -o -name '*.auto' -o -name '*.map' \
              -o -name build.sh | LC_ALL=C sort)

for file in $c_files $other_files; do
    LC_ALL=C awk -v file="$file" '
        function bad(what) {
            printf "%s:%d: %s\n", file, FNR, what
            errors = 1
        }

        BEGIN { c = file ~ /\.[ch]$/ }

        /\t/            { bad("tab") }
        /[ \r]$/        { bad("space at the end of the line") }

        /^$/            { empty++ }
        !/^$/           { empty = 0 }
        c && empty > 2  { bad("more than two empty lines") }

        c {
            if (length($0) > 79) {
                bad("longer than 79 columns")
            }

            # without strings, in which "//" is part of a URL
            line = $0
            gsub(/\\\\/, "", line)
            gsub(/\\"/, "", line)
            gsub(/"[^"]*"/, "", line)

            # a comment may cite a URL
            start = index(line, "/*")
            if (start) {
                line = substr(line, 1, start - 1)
            } else if (in_comment) {
                line = ""
            }

            if ($0 ~ /\/\*/) { in_comment = 1 }
            if ($0 ~ /\*\//) { in_comment = 0 }

            if (line ~ /\/\//) {
                bad("// comment")
            }

            if (line ~ /(^|[^a-z_])(if|for|while|switch)\(/) {
                bad("no space before the parenthesis")
            }

            if (line ~ /^\{/ && last ~ /^$/) {
                bad("function without a name before its brace")
            }

            last = $0
        }

        # <ngx_config.h> says which parts of the system there are
        c && file ~ /^modules/ && /^#include/ {
            if ($2 !~ /ngx_/) {
                foreign = 1

            } else if (!ours++ && foreign) {
                bad("a header of the system before <ngx_config.h>")
            }
        }

        c && FNR == 1 && $0 != ""  { bad("first line is not empty") }
        c && FNR == 3 && $0 !~ /Copyright \(C\) nginx AI gateway authors/ {
            bad("no copyright line")
        }

        END {
            if (c && file ~ /^(modules|tools)/ && FNR > 1500) {
                bad("more than 1500 lines")
            }

            if (empty) {
                bad("empty line at the end of the file")
            }

            exit errors
        }
    ' "$file" || failed=1
done

[ -z "$failed" ] || exit 1
