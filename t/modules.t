#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Hazards 16, 17, 27: other modules beside ours, in both orders; their filters
# and balancers see what they see of any proxied answer.  The modules of
# TEST_NGINX_OTHER_MODULES (default: the distribution's directory) are used
# that are there.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Basename qw(basename);
use Test::More;

use AI::Kit;
use AI::Gateway;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my @ours = AI::Gateway::modules();
plan skip_all => 'the modules are in the binary' if !@ours;

my $dir = $ENV{TEST_NGINX_OTHER_MODULES} // '/usr/lib/nginx/modules';
my $p = provider();
my $url = $p->url;

# each alone, to see which of them this nginx takes; some need others

my @first = grep { -e "$dir/$_.so" } qw(ndk_http_module ngx_stream_module
                                        ngx_mail_module);
my @others = @first;

for my $name (sort map { basename($_, '.so') } glob "$dir/*.so") {
    next if grep { $_ eq $name } @first, @ours;

    my $gw = AI::Gateway->new(conf => "%%MODULES%%\nevents {}\nhttp {\n}\n",
                              load => []);
    $gw->write_file('nginx.conf', join('', map { "load_module $dir/$_.so; " }
                    @first, $name) . "pid $gw->{dir}/nginx.pid; "
                    . "error_log $gw->{dir}/error.log;\n"
                    . "events {}\nhttp {\n}\n");
    my ($rc, $out) = $gw->conf_test;

    if ($rc == 0) {
        push @others, $name;
    } else {
        my ($why) = $out =~ /\[(?:emerg|alert)\] (.*)/;
        note("$name is not used: " . ($why // $out));
    }
}

my %has = map { $_ => 1 } @others;

plan skip_all => "no other modules in $dir" if !@others;

note("with @others");

# what they can do in a location of ours

my $more = '';
$more .= 'brotli on; brotli_min_length 1; brotli_types application/json '
         . "text/event-stream;\n" if $has{ngx_http_brotli_filter_module};
$more .= "more_set_headers 'X-More: \$ai_model';\n"
    if $has{ngx_http_headers_more_filter_module};
$more .= "subs_filter_types application/json; subs_filter w1 W1;\n"
    if $has{ngx_http_subs_filter_module};
$more .= 'set $lua ""; header_filter_by_lua_block { ngx.header["X-Lua"] = '
         . "ngx.var.ai_provider }\n" if $has{ngx_http_lua_module};

my $fair = $has{ngx_http_upstream_fair_module} ? 'fair;' : '';

my $conf = <<"END";
%%MODULES%%
events {
}

http {
    gzip on;
    gzip_min_length 1;
    gzip_types application/json text/event-stream;

    upstream pool { $fair server 127.0.0.1:@{[ $p->port ]}; keepalive 4; }

    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider u { dialect openai; endpoint http://pool/v1; key none; }
    ai_model m { target p/ok; }
    ai_model u { target u/ok; }
    ai_model f { target p/status:500; fallback u/ok; retry off; }
    ai_model h { target p/first:500; fallback u/ok; hedge 50ms; }

    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /v1/ { ai_pass model; }
        location /more/ { $more ai_pass model; }
    }
}
END

# minimal, as hazard 17 wants it

my $minimal = <<"END";
%%MODULES%%
events {}
http {
ai_provider p { dialect openai; endpoint $url; key none; }
server { listen 127.0.0.1:%%PORT_0%%; location / { ai_pass p; } }
}
END

for my $order ([ @others, @ours ], [ @ours, @others ],
               [ reverse(@ours), @others ])
{
    for my $text ($minimal, $conf) {
        my $full = $text eq $conf;

        my $gw = AI::Gateway->new(workers => 2);
        my $ai = AI::Gateway::modules_dir();
        my $load = join ' ', map {
            my $name = $_;
            (grep { $_ eq $name } @ours) ? "load_module $ai/$name.so;"
                                         : "load_module $dir/$name.so;"
        } @$order;

        $gw->{load} = [];
        $gw->write_conf($text =~ s/%%MODULES%%/%%MODULES%% $load/r);
        $gw->start;

        my $name = "$order->[0] first, " . ($full ? 'full' : 'minimal');

        for my $model ($full ? qw(m u f h) : 'ok') {
            for my $path ($full ? qw(/v1/ /more/) : '/') {
                for my $stream (0, 1) {
                    my $r = $gw->client->post("${path}chat/completions",
                                              chat($model,
                                                   stream => $stream));
                    is($r->{status}, 200, "$name: $path $model $stream");
                    my $text = $stream ? $r->text
                             : $r->json->{choices}[0]{message}{content};
                    is(lc $text, 'w1 w2 w3 w4 w5', '... whole');

                    next if $path ne '/more/';
                    is($r->{headers}{'x-more'}, $model, '... header')
                        if $has{ngx_http_headers_more_filter_module};
                    like($r->{headers}{'x-lua'}, qr/^[pu]$/, '... by Lua')
                        if $has{ngx_http_lua_module};
                }
            }
        }

        if ($full) {
            # compressed by whom the client likes
            for my $coding ('gzip', 'br') {
                next if $coding eq 'br'
                        && !$has{ngx_http_brotli_filter_module};
                my $r = $gw->client->post('/more/chat/completions',
                    chat('m', stream => 1),
                    headers => [ 'Accept-Encoding' => $coding ]);
                is($r->{headers}{'content-encoding'}, $coding,
                   "$name: $coding");
                ok($r->{done} && length $r->{body}, '... whole');
            }

            ok($gw->reload, "$name: reload");
        }

        is($gw->client->get($full ? '/v1/models' : '/models')->{status},
           200, "$name: models");
        $gw->finish;
    }
}

done_testing();
