#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Makes ngx_http_ai_status_page.c of index.html, style.css and app.js: one page
# with a policy that allows its own style and script and nothing else.
#
#     perl make.pl > ../ngx_http_ai_status_page.c
#
# The result is kept with the sources, so that a build needs no Perl;
# t/status.t sees that it is current.

use strict;
use warnings;

use Digest::SHA qw(sha256_base64);
use File::Basename qw(dirname);

my $dir = dirname(__FILE__);

my %part = (
    STYLE  => dense(slurp('style.css')),
    SCRIPT => dense(slurp('app.js') =~ s{^\s*//.*\n}{}mgr),
);

my $page = dense(slurp('index.html'));

for my $name (sort keys %part) {
    die "$name would end its element" if $part{$name} =~ m{</}
                                         || $part{$name} =~ /<!--/;
    $page =~ s/%%$name%%/$part{$name}/ or die "no place for $name";
}

my $policy = join '; ', "default-src 'none'",
    'script-src ' . hashed($part{SCRIPT}),
    'style-src ' . hashed($part{STYLE}),
    "connect-src 'self'", 'img-src data:', "base-uri 'none'",
    "form-action 'none'", "frame-ancestors 'none'",
    "require-trusted-types-for 'script'", "trusted-types 'none'";

print <<"END";

/*
 * Copyright (C) nginx AI gateway authors
 */


/* made by page/make.pl, to be changed in the files next to it */


#include "ngx_http_ai_status.h"


@{[ string('page', $page) ]}

@{[ string('policy', $policy) ]}
END


sub slurp {
    my ($name) = @_;

    open my $f, '<', "$dir/$name" or die "$name: $!";
    local $/;
    my $text = <$f>;

    die "$name is not plain ASCII" if $text =~ /[^\x0a\x20-\x7e]/;

    return $text;
}

# without what is there for readers only

sub dense {
    my ($text) = @_;

    $text =~ s/^ +//mg;
    $text =~ s/\n\n+/\n/g;

    return $text;
}

sub hashed {
    my ($text) = @_;
    my $hash = sha256_base64($text);

    $hash .= '=' while length($hash) % 4;

    return "'sha256-$hash'";
}

sub string {
    my ($name, $text) = @_;
    my @lines;

    for my $line ($text =~ /[^\n]*\n|[^\n]+$/g) {
        my $end = $line =~ s/\n$// ? '\\n' : '';
        my @units = map { /["\\]/ ? "\\$_" : $_ } split //, $line;

        # two question marks might begin a trigraph
        for my $i (1 .. $#units) {
            $units[$i] = '\\?'
                if $units[$i] eq '?' && $units[$i - 1] =~ /\?$/;
        }

        my $part = '';

        for my $unit (@units, $end) {
            if (length($part) + length($unit) > 70) {
                push @lines, $part;
                $part = '';
            }

            $part .= $unit;
        }

        push @lines, $part;
    }

    return "const ngx_str_t  ngx_http_ai_status_$name = ngx_string(\n"
           . join("\n", map { "    \"$_\"" } @lines) . "\n);";
}
