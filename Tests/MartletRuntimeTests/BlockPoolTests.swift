// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletRuntime
import Testing

extension BlockPool {
    /// Takes a page without asking what it held.
    fileprivate mutating func allocate() -> Int32? {
        var tag = -1
        return allocate(lostTag: &tag)
    }
}

struct BlockPoolTests {
    /// Of pages that hold something; those that hold nothing come before them.
    @Test func takesTheLongestFreePageFirst() {
        var pool = BlockPool(pageCount: 4)
        #expect((0..<5).map { _ in pool.allocate() } == [0, 1, 2, 3, nil])
        for page: Int32 in [1, 0, 3] { pool.setTag(page, Int(page)) }
        for page: Int32 in [1, 0, 2, 3] { pool.release(page) }
        #expect(pool.checkInvariants() == nil)
        #expect((0..<3).map { _ in pool.allocate() } == [2, 1, 0])
        // What is forgotten while free goes in front, what is learned behind.
        pool.release(2)
        pool.setTag(3, -1)
        pool.setTag(2, 7)
        #expect(pool.checkInvariants() == nil)
        #expect((0..<2).map { _ in pool.allocate() } == [3, 2])
        #expect(pool.checkInvariants() == nil)
    }

    @Test func refusesToReleaseWhatNobodyHolds() {
        var pool = BlockPool(pageCount: 2)
        #expect(pool.release(0) == false)
        #expect(pool.release(-1) == false)
        #expect(pool.release(2) == false)
        #expect(pool.allocate() == 0)
        pool.retain(0)
        #expect(pool.release(0) == true)
        #expect(pool.freeCount == 1)
        #expect(pool.release(0) == true)
        #expect(pool.release(0) == false)
        #expect(pool.freeCount == 2)
    }

    @Test func keepsTheTagOfAFreePageUntilItIsTaken() {
        var pool = BlockPool(pageCount: 2)
        let page = pool.allocate() ?? -1
        pool.setTag(page, 99)
        pool.release(page)
        #expect(pool.tag(page) == 99)
        pool.retain(page)
        #expect(pool.referenceCount(page) == 1)
        #expect(pool.allocate() == 1)
        pool.release(page)
        var tag = -1
        #expect(pool.allocate(lostTag: &tag) == page)
        #expect(tag == 99)
        #expect(pool.tag(page) == -1)
        #expect(pool.checkInvariants() == nil)
    }

    @Test(arguments: 0..<8) func keepsItsInvariantsUnderRandomOperations(seed: UInt64) {
        var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
        func random(_ limit: Int) -> Int {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return Int(state % UInt64(limit))
        }
        var pool = BlockPool(pageCount: 13)
        var held: [Int32] = []
        for _ in 0..<5000 {
            switch random(4) {
            case 0:
                if let page = pool.allocate() {
                    #expect(!held.contains(page))
                    held.append(page)
                } else {
                    #expect(Set(held).count == 13)
                }
            case 1:
                let page = Int32(random(13))
                pool.retain(page)
                held.append(page)
            case 2 where !held.isEmpty:
                #expect(pool.release(held.remove(at: random(held.count))) == true)
            default:
                if let page = held.last { pool.setTag(page, random(20)) }
            }
            let broken = pool.checkInvariants()
            #expect(broken == nil, "seed \(seed)")
            #expect(pool.freeCount == 13 - Set(held).count)
            if broken != nil { return }
        }
    }
}
