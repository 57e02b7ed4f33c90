import CArchive
import CCurl
import Testing

/// The C libraries that are bound for what comes next are there and usable
/// through their shims.
struct LibraryTests {
    @Test func `libarchive writes a tar that it reads again`() throws {
        var block = [UInt8](repeating: 0, count: 64 << 10)
        var used = 0
        let writer = try #require(archive_write_new())
        defer { archive_write_free(writer) }
        #expect(archive_write_set_format_pax_restricted(writer) == bgb_archive_ok())
        #expect(archive_write_open_memory(writer, &block, block.count, &used) == bgb_archive_ok())
        let entry = try #require(archive_entry_new())
        defer { archive_entry_free(entry) }
        archive_entry_set_pathname(entry, "collections/c/config.json")
        archive_entry_set_size(entry, 2)
        archive_entry_set_mode(entry, 0o100600)
        #expect(archive_write_header(writer, entry) == bgb_archive_ok())
        #expect(archive_write_data(writer, "{}", 2) == 2)
        #expect(archive_write_close(writer) == bgb_archive_ok())

        let reader = try #require(archive_read_new())
        defer { archive_read_free(reader) }
        archive_read_support_format_tar(reader)
        #expect(archive_read_open_memory(reader, &block, used) == bgb_archive_ok())
        var found: OpaquePointer?
        #expect(archive_read_next_header(reader, &found) == bgb_archive_ok())
        #expect(String(cString: archive_entry_pathname(found)) == "collections/c/config.json")
        #expect(archive_entry_size(found) == 2)
        #expect(archive_read_next_header(reader, &found) == bgb_archive_eof())
    }

    @Test func `libcurl takes options through typed setters`() throws {
        let handle = try #require(curl_easy_init())
        defer { curl_easy_cleanup(handle) }
        #expect(bgb_curl_set_string(handle, CURLOPT_URL, "file:///proc/self/comm") == CURLE_OK)
        #expect(bgb_curl_set_long(handle, CURLOPT_NOBODY, 1) == CURLE_OK)
        #expect(curl_easy_perform(handle) == CURLE_OK)
        var status = -1
        #expect(bgb_curl_get_long(handle, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK)
        #expect(status == 0)
    }
}
