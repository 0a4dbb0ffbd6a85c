#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The modules load, in any order, and bring nothing into nginx's process that
# could clash with another module.  Hazards 27 and 28.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Gateway;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my @modules = AI::Gateway::modules();
my $dir = AI::Gateway::modules_dir();

my $conf = <<'END';
events {
}

http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        return 204;
    }
}
END


SKIP: {
    skip 'the modules are in the binary', 1 if !@modules;

    ok((grep { $_ eq 'ngx_http_ai_core_module' } @modules), 'core is built');

    # each module first, and last, and the whole list backwards
    my @orders = ([ @modules ], [ reverse @modules ]);

    for my $i (1 .. $#modules - 1) {
        push @orders, [ @modules[$i .. $#modules], @modules[0 .. $i - 1] ];
    }

    for my $order (@orders) {
        my $gw = AI::Gateway->new(conf => $conf, load => $order);
        my ($rc, $out) = $gw->conf_test;
        is($rc, 0, "order: @$order") or diag($out);
    }

    for my $module (@modules) {
        next if $module eq 'ngx_http_ai_core_module';

        my $gw = AI::Gateway->new(conf => $conf, load => [ $module ],
                                  allow => [ qr/ngx_http_ai_core_module/ ]);
        my ($rc, $out) = $gw->conf_test;
        my @emerg = $out =~ /\[emerg\].*/g;

        isnt($rc, 0, "$module without the core");
        is(scalar @emerg, 1, '... one message') or diag($out);
        like($emerg[0] // '', qr/$module.*ngx_http_ai_core_module/,
             '... that names both');
        unlike($out, qr/undefined symbol/, '... and is not of the linker');
    }

    # the core alone, and none at all
    for my $load ([ 'ngx_http_ai_core_module' ], []) {
        my $gw = AI::Gateway->new(conf => $conf, load => $load);
        my ($rc, $out) = $gw->conf_test;
        is($rc, 0, 'only: ' . (@$load ? "@$load" : 'nothing')) or diag($out);
    }

    # twice is a mistake nginx finds itself
    my $gw = AI::Gateway->new(conf => $conf, load => [ @modules, @modules ]);
    my ($rc, $out) = $gw->conf_test;
    isnt($rc, 0, 'loaded twice');
    like($out, qr/is already loaded/, '... nginx says so');

    for my $module (@modules) {
        my $so = "$dir/$module.so";

        my @symbols = map { (split)[2] // () }
                      `nm -D --defined-only '$so' 2>/dev/null`;
        @symbols = sort grep { !/^(?:__gcov|_edata|_end|__bss_start)/ }
                   @symbols;

        SKIP: {
            skip 'no nm', 1 if !@symbols;
            is("@symbols", 'ngx_module_names ngx_module_order ngx_modules',
               "$module exports what nginx needs");
        }

        is(signature($so), signature($AI::Gateway::binary),
           "$module has the signature of nginx");
    }
}


# it runs, with several workers, and reloads

my $gw = AI::Gateway->new(conf => $conf, workers => 2, daemon => 1);
$gw->start;
is($gw->client->get('/')->{status}, 204, 'nginx serves');
is(scalar(() = $gw->workers), 2, 'two workers');
ok($gw->reload, 'reload');
is($gw->client->get('/')->{status}, 204, 'nginx serves after a reload');
ok($gw->upgrade, 'upgrade of the binary');
is($gw->client->get('/')->{status}, 204, 'nginx serves after an upgrade');
ok($gw->stop, 'nginx stops');

done_testing();


# the string that nginx compares

sub signature {
    my ($file) = @_;

    open my $f, '<:raw', $file or return "no $file";
    local $/;
    my $data = <$f>;

    return $data =~ /(\d,\d,\d,[01]{30,40})\0/ ? $1 : 'none';
}
