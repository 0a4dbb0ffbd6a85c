#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Coding style of everything that is compiled.

use strict;
use warnings;

use FindBin;
use Test::More;

my @out = `sh "$FindBin::Bin/style.sh" 2>&1`;
my $rc = $? >> 8;

is($rc, 0, 'style') or diag(@out[0 .. ($#out < 30 ? $#out : 30)]);

done_testing();
