#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The list of models, a single one, and what is said of one that is unknown.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Kit;
use AI::Gateway;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $gw = gateway(<<'END', server => <<'SERVER');
    ai_provider s { dialect static; }

    ai_model smart         { target s/x; }
    ai_model fast          { target s/x; }
    ai_model vendor/model  { target s/x; }
    ai_model é+%41         { target s/x; }
    ai_alias gpt-4o smart;
END
    location /v1/  { ai_pass model; }
    location /a/b/ { ai_pass model direct=on; }
    location /p/   { ai_pass s; }
SERVER

my @names = sort 'smart', 'fast', 'vendor/model', "\xc3\xa9+%41", 'gpt-4o';
my $c = $gw->client;
my @anthropic = (headers => [ 'anthropic-version' => '2023-06-01' ]);

sub bytes { return map { my $s = $_; utf8::encode($s); $s } @_ }

# OpenAI

my $r = $c->get('/v1/models?1');
my $list = $r->json;

is($r->{status}, 200, 'list');
is($r->{headers}{'content-type'}, 'application/json', '... type');
is($r->{headers}{'content-length'}, length $r->{body}, '... length');
like($r->{headers}{'x-request-id'}, qr/^req_[0-9a-f]{32}$/, '... request id');
is($list->{object}, 'list', '... object');
is_deeply([ sort(bytes(map { $_->{id} } @{ $list->{data} })) ], \@names,
          '... models and aliases');
is(scalar(grep { $_->{object} ne 'model' || $_->{created} !~ /^\d{10}$/
                 || !length $_->{owned_by} } @{ $list->{data} }), 0,
   '... each of them complete');

my $log = settled($gw, '/v1/models?1');
is("$log->{operation} $log->{usage_state} $log->{error}", 'models none ',
   '... variables');

is(scalar @{ $c->get('/a/b/models')->json->{data} }, scalar @names,
   'elsewhere');
is($c->get('/v1/models', http => '1.0')->{status}, 200, 'HTTP/1.0');

for my $method ('POST', 'DELETE', 'PUT') {
    $r = $c->request($method, '/v1/models', $method eq 'POST' ? '{}' : undef);
    is($r->{status}, 405, "$method: refused");
    like($r->{headers}{allow} // '', qr/GET/, '... Allow');
    is($r->json->{error}{code}, 'method_not_allowed', '... code');
}

$r = $c->request('HEAD', '/v1/models');
is($r->{status}, 200, 'HEAD');
is($r->{body}, '', '... no body');

for (@names) {
    my $path = s/([^a-z0-9\/-])/sprintf '%%%02X', ord $1/ger;
    $r = $c->get("/v1/models/$path");
    is($r->{status}, 200, "model $path");
    is((bytes($r->json->{id}))[0], $_, '... its name');
    is($r->json->{object}, 'model', '... object');
}

is($c->get('/v1/models/vendor%2Fmodel')->json->{id}, 'vendor/model',
   'an encoded slash');

$r = $c->get('/v1/models/smrt?2');
is($r->{status}, 404, 'unknown');
is($r->json->{error}{message},
   'the model "smrt" does not exist, did you mean "smart"?', '... near match');
is($r->json->{error}{type}, 'invalid_request_error', '... type');
is($r->json->{error}{code}, 'model_not_found', '... code');
is($r->json->{error}{param}, 'model', '... param');
$log = settled($gw, '/v1/models/smrt?2');
is("$log->{operation} $log->{request_model} $log->{error}",
   'model smrt not_found', '... variables');

like($c->get('/v1/models/gpt-4')->{body}, qr/did you mean \\"gpt-4o\\"\?/,
     '... an alias');
is($c->get('/v1/models/completely-different')->json->{error}{message},
   'the model "completely-different" does not exist', '... nothing is near');

# the answer to a request is the same

$r = $c->post('/v1/chat/completions', chat('smrt'));
is($r->{status}, 404, 'a chat with an unknown model');
is($r->json->{error}{message},
   'the model "smrt" does not exist, did you mean "smart"?', '... message');
$r = $c->post('/v1/messages', chat('smrt', max_tokens => 1));
is($r->{status}, 404, '... Anthropic');
is_deeply([ @{ $r->json->{error} }{qw(type message)} ],
          [ 'not_found_error',
            'the model "smrt" does not exist, did you mean "smart"?' ],
          '... message');
is($r->json->{type}, 'error', '... in its shape');
is($r->json->{request_id}, $r->{headers}{'x-request-id'}, '... request id');

# names that would break the answer

for my $bad ('a"b', 'a\\b', "a\tb", '<x>', "\xff\xfe") {
    my $path = $bad =~ s/([^a-z])/sprintf '%%%02X', ord $1/ger;
    $r = $c->get("/v1/models/$path");
    is($r->{status}, 404, "model $path");
    ok(eval { $r->json->{error}{message} }, '... valid JSON');
}

# Anthropic

$r = $c->get('/v1/models', @anthropic);
$list = $r->json;
is($r->{status}, 200, 'list, Anthropic');
is_deeply([ sort(bytes(map { $_->{id} } @{ $list->{data} })) ], \@names,
          '... models and aliases');
is(scalar(grep { $_->{type} ne 'model' || !length $_->{display_name}
                 || $_->{created_at} !~ /^\d{4}-\d\d-\d\dT[\d:]+Z$/ }
          @{ $list->{data} }), 0, '... each of them complete');
ok(exists $list->{has_more} && !$list->{has_more}, '... no more');
is($list->{first_id}, $list->{data}[0]{id}, '... first');
is($list->{last_id}, $list->{data}[-1]{id}, '... last');

$r = $c->get('/v1/models/smart', @anthropic);
is_deeply([ @{ $r->json }{qw(id type)} ], [ 'smart', 'model' ],
          'model, Anthropic');

$r = $c->get('/v1/models/smrt', @anthropic);
is($r->{status}, 404, '... unknown');
is($r->json->{error}{type}, 'not_found_error', '... type');
like($r->json->{error}{message}, qr/did you mean "smart"\?/, '... near match');

$r = $c->request('DELETE', '/v1/models', undef, @anthropic);
is($r->{status}, 405, '... method');
is($r->json->{type}, 'error', '... in its shape');

$gw->finish;

done_testing();
