#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# ai_pass among the phases and redirections of nginx: what is denied stays so,
# errors are told in the client's dialect, usage is settled once.
# Hazards 8 and 29.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;

use AI::Kit;
use AI::Gateway;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $p = provider();
my $url = $p->url;

my %files = (htpasswd => "joe:{PLAIN}secret\n");

my $gw = gateway(<<"END", server => <<'SERVER', files => \%files);
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_model m    { target p/n:2+usage:3.2; price in=1 out=1; }
    ai_model bad  { target p/status:503; retry off; }
    ai_model s    { target static; }
    ai_provider static { dialect static; text "static"; }

    limit_req_zone \$server_port zone=one:1m rate=1r/m;
    limit_conn_zone \$server_port zone=conn:1m;
    map \$http_x_deny \$deny { default 0; 1 1; }
END
    location /v1/ { ai_pass model; }

    location /basic/ {
        auth_basic "who";
        auth_basic_user_file %%DIR%%/htpasswd;
        ai_pass model;
    }

    location /denied/ { deny all; ai_pass model; }

    location /any/ {
        satisfy any;
        deny all;
        auth_basic "who";
        auth_basic_user_file %%DIR%%/htpasswd;
        ai_pass model;
    }

    location /any-open/ {
        satisfy any;
        allow 127.0.0.1;
        auth_basic "who";
        auth_basic_user_file %%DIR%%/htpasswd;
        ai_pass model;
    }

    location /asked/    { auth_request /ask; ai_pass model; }
    location /asked-ai/ { auth_request /ai-ask/chat/completions;
                          ai_pass model; }
    location = /ask     { internal; if ($http_x_deny) { return 403; }
                          return 204; }
    location /ai-ask/   { ai_pass model; }

    location /limited/  { limit_req zone=one; limit_req_status 429;
                          ai_pass model; }
    location /limited5/ { limit_req zone=one; ai_pass model; }
    location /conn/     { limit_conn conn 1; ai_pass model; }

    location /mirrored/ { mirror /copy; ai_pass model; }
    location = /copy    { internal; access_log %%DIR%%/copy.log ai;
                          return 204; }
    location /mirror-ai/ { mirror /ai-copy/chat/completions; ai_pass model; }
    location /ai-copy/  { internal; ai_pass model; }

    location /page/     { error_page 503 403 /sorry;
                          if ($http_x_deny) { return 403; } ai_pass model; }
    location /page-ai/  { error_page 403 = @named; deny all; ai_pass model; }
    location = /sorry   { return 200 sorry; }

    location /to-named/ { error_page 418 = @named; return 418; }
    location @named     { ai_pass model; }

    location /rewrite/  { rewrite ^/rewrite/(.*)$ /v1/$1 last; }
    location /break/    { rewrite ^/break/(.*)$ /v1/$1 break; ai_pass model; }
    location /tried/    { try_files /nonexistent @named; }
    location /tried2/   { root %%DIR%%; try_files /nothing
                          /v1/chat/completions; }

    location /if/ {
        if ($http_x_deny) { return 403; }
        if ($http_x_static = 1) { ai_pass static; }
        ai_pass model;
    }
    location /except/ {
        limit_except POST { deny all; }
        ai_pass model;
    }
    location /return/ { return 403 "no way"; ai_pass model; }

    location /ssi/ { root %%DIR%%; ssi on; ssi_types text/plain; }
    location /exact/chat/completions { ai_pass model; }
    location ~ ^/re/ { ai_pass model; }
    location /large/ { client_max_body_size 100; ai_pass model; }
    location /headers/ { add_header X-Mine $ai_model; expires 1h;
                         ai_pass model; }
SERVER

my $dir = $gw->dir;
mkdir "$dir/ssi";
$gw->write_file('ssi/a.html', 'before<!--# include virtual="/v1/models" -->'
                              . '<!--# include virtual="/v1/chat/completions"'
                              . ' -->after');

my @joe = (Authorization => 'Basic ' . encode_base64('joe:secret', ''));
my $n = 0;

# the answer, and the only line of the log for it

sub at {
    my ($where, %opt) = @_;
    my $path = "/$where/" . ($opt{path} // 'chat/completions') . '?' . ++$n;
    my $body = exists $opt{body} ? $opt{body} : chat($opt{model} // 'm');

    $p->reset if !$opt{keep};
    my $r = $gw->client->request($opt{method} // 'POST', $path, $body,
                                 headers => $opt{headers} // []);
    return ($r, settled($gw, $path) // {});
}

sub works {
    my ($name, $where, %opt) = @_;
    my ($r, $log) = at($where, %opt);

    is($r->{status}, 200, "$name: works") or diag($r->{body});
    is(eval { $r->json->{choices}[0]{message}{content} }, 'w1 w2',
       '... answer');
    is("$log->{usage_state} $log->{input_tokens} $log->{output_tokens} "
       . $log->{cost}, 'provider 3 2 0.000005000', '... settled once');
    is(scalar(() = $p->log), 1, '... asked once');
}

# in both dialects; nobody is asked

sub refused {
    my ($name, $where, $status, $type, $anthropic, %opt) = @_;

    my ($r, $log) = at($where, %opt);
    is($r->{status}, $status, "$name: refused");
    is(eval { $r->json->{error}{type} }, $type, '... type')
        or diag($r->{body});
    is($r->{headers}{'content-type'}, 'application/json', '... JSON');
    is($log->{usage_state} // '', 'none', '... nothing was used');

    ($r, $log) = at($where, path => 'messages', keep => 1, %opt);
    is($r->{status}, $status, '... Anthropic');
    is(eval { $r->json->{error}{type} }, $anthropic, '... type')
        or diag($r->{body});
    is(eval { $r->json->{type} }, 'error', '... shape');
    is(scalar(() = $p->log), 0, '... nobody was asked');

    return $r;
}

works('plain', 'v1');

# access

my $r = refused('auth_basic', 'basic', 401, 'invalid_request_error',
                'authentication_error');
is($r->{headers}{'www-authenticate'}, 'Basic realm="who"',
   '... WWW-Authenticate');
works('auth_basic', 'basic', headers => \@joe);
ok(!grep({ exists $_->{headers}{authorization} } $p->log),
   '... its password goes no further');

refused('deny', 'denied', 403, 'invalid_request_error', 'permission_error');
refused('satisfy any', 'any', 401, 'invalid_request_error',
        'authentication_error');
works('satisfy any', 'any', headers => \@joe);
works('satisfy any, allowed', 'any-open');

works('auth_request', 'asked');
refused('auth_request', 'asked', 403, 'invalid_request_error',
        'permission_error', headers => [ 'X-Deny' => 1 ]);

# an AI location that is asked for permission gives none

my $log;
($r) = at('asked-ai');
is($r->{status} == 200 ? 'allowed' : 'denied', 'denied',
   "auth_request of an AI location: $r->{status}");
is(scalar(() = $p->log), 0, '... nobody was asked');

# limits

works('limit_req', 'limited');
refused('limit_req', 'limited', 429, 'requests', 'rate_limit_error');
refused('limit_req, 503', 'limited5', 503, 'server_error',
        'overloaded_error');

my $slow = $gw->client->open('/conn/chat/completions', undef,
    raw => "POST /conn/chat/completions HTTP/1.1\r\nHost: a\r\n"
           . "Content-Length: 100\r\n\r\n{");
$gw->wait_for(sub { active($gw) >= 1 });
select undef, undef, undef, 0.7;
($r) = at('conn');
is($r->{status}, 503, 'limit_conn');
is(eval { $r->json->{error}{type} }, 'server_error', '... JSON');
$slow->abort;
$gw->wait_for(sub { active($gw) == 0 });
works('limit_conn', 'conn');

refused('client_max_body_size', 'large', 413, 'invalid_request_error',
        'request_too_large', body => { model => 'm', x => 'y' x 200 });

# subrequests

works('mirror', 'mirrored');
works('mirror to an AI location', 'mirror-ai');

$r = $gw->client->get('/ssi/a.html');
is($r->{status}, 200, 'SSI');
like($r->{body}, qr/^before.*after$/s, '... around');
unlike($r->{body}, qr/"object"/, '... an AI location is no subrequest');
is(scalar(grep { $_ eq '' } map { $_->{body} } $p->log), 0,
   '... nobody was asked');

# redirections

works('rewrite last', 'rewrite');
works('rewrite break', 'break');
works('try_files @named', 'tried');
works('try_files uri', 'tried2');
works('error_page to an AI location', 'to-named');
works('exact location', 'exact');
works('regular expression', 're');

works('error_page of an AI location', 'page-ai');

# error_page is for what nginx says; a provider's error is an answer

($r) = at('page', headers => [ 'X-Deny' => 1 ]);
is("$r->{status} $r->{body}", '403 sorry', 'error_page');
($r, $log) = at('page', model => 'bad');
is($r->{status}, 503, 'a provider\'s error');
is($r->json->{error}{message}, 'failed: 503', '... is told as it is');
is("$log->{error} $log->{usage_state}", 'overloaded none', '... and logged');

# if

works('if', 'if');
refused('return in if', 'if', 403, 'invalid_request_error',
        'permission_error', headers => [ 'X-Deny' => 1 ]);
($r) = at('if', headers => [ 'X-Static' => 1 ]);
is($r->json->{choices}[0]{message}{content}, 'static', 'ai_pass in if');

works('limit_except', 'except');
($r) = at('except', method => 'GET', body => undef, path => 'models');
is($r->{status}, 403, '... another method');

($r) = at('return');
is("$r->{status} $r->{body}", '403 no way', 'return with a text');

($r) = at('headers');
is($r->{headers}{'x-mine'}, 'm', 'add_header');
like($r->{headers}{'cache-control'}, qr/max-age=3600/, 'expires');

# errors of HTTP before any location

$r = $gw->client->post('/nowhere/chat/completions', chat('m'));
is($r->{status}, 404, 'elsewhere nginx answers');
unlike($r->{headers}{'content-type'}, qr/json/, '... in its way');

is(scalar(grep { /"usage_state":""/ } grep { m{"uri":"/v1/} }
          $gw->access_log), 0, 'each request has a state');

$gw->finish;

done_testing();
